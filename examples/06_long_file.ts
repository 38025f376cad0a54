/** A file of any length: it is read piece by piece, the output is written piece by piece, and memory stays where it is. */
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attendTo, load } from "../mod.ts";

const genome = fileURLToPath(new URL("data/lambda_virus.fa", import.meta.url));
await using x = await load(genome, { encode: "kmer:6" }); // .npy, .npz and .safetensors need no encoding
console.log(x.toString());

const output = join(tmpdir(), `performer-example-${Date.now()}.npy`);
const report = await attendTo(output, x, {
  backend: "wasm",
  features: "hyp-sderf", // fitted to the data
  check: 128,
});
console.log(`${report.input.rows} rows, state of fixed size, ${Math.round(report.tokensPerSecond)} tokens/s`);
console.log(`error ${report.error!.relativeL2.value.toFixed(2)}, skill ${report.error!.skill.toFixed(2)}`);

await using written = await load(output, { rows: [0, 2] }); // and back
console.log(`first rows of ${written.info.rows}: ${(await written.read()).toRows()[0].slice(0, 3).join(", ")}`);
await (await import("node:fs/promises")).rm(output);
