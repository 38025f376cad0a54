/** Run by onnx.test.ts under Deno: prints the device and the error of the self-test. */
import { onnx } from "../../src/backends/onnx.ts";
import { goldenError } from "../../src/backends/self_test.ts";

await using backend = await onnx.open({ named: true, threads: 1 });
console.log(backend.device);
console.log(await goldenError(backend));
