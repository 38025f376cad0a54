/** Attention in one call: the output, how far it is from exact softmax, and the report in words. */
import { attend, normal, relativeError, reportText, softmaxAttention } from "../mod.ts";

const x = normal([1000, 64], { sd: 0.4 }); // seeded rows; tensor(data, [rows, columns]) takes your own
const { output, report } = await attend(x, { heads: 2, backend: "wasm" });

const exact = await softmaxAttention(x, { heads: 2, backend: "wasm" });
console.log(output.toString());
console.log(`error on all rows      ${relativeError(output, exact).toFixed(3)}`);
console.log(`error on sampled rows  ${report.error!.relativeL2.value.toFixed(3)}`);
console.log(`of the mean of V       ${report.error!.uniformBaseline.toFixed(3)}`);
console.log(reportText(report));
