/** Stands for src/threads.ts in the npm package: everything lies side by side in dist/. */
import { URL } from "node:url";

export const THREADS = {
  compute: new URL("./wasm_worker.js", import.meta.url),
  pipe: new URL("./pipe_worker.js", import.meta.url),
} as const;
