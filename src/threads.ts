/** Where the code of threads is. Another module takes this one's place in the npm package and in the single binary (scripts/ship). */
import { URL } from "node:url";

export const THREADS = {
  /** One that computes: src/backends/wasm_worker.ts. */
  compute: new URL("./backends/wasm_worker.ts", import.meta.url),
  /** One that writes to a pipe: src/pipe_worker.ts. */
  pipe: new URL("./pipe_worker.ts", import.meta.url),
} as const;
