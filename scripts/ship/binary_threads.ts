/** Stands for src/threads.ts in the single binary: files inside it have the names of their sources. */
import { URL } from "node:url";

export const THREADS = {
  compute: new URL("./src/backends/wasm_worker.js", import.meta.url),
  pipe: new URL("./src/pipe_worker.js", import.meta.url),
} as const;
