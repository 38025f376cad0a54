/** Run by gpujs.test.ts under Deno: prints the device and the error of the self-test. */
import { gpujs } from "../../src/backends/gpujs.ts";
import { goldenError } from "../../src/backends/self_test.ts";

await using backend = await gpujs.open({ variant: process.argv[2], named: true });
console.log(backend.device);
console.log(await goldenError(backend));
