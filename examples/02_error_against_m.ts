/** The error of the output falls as 1/√m while queries and keys are small, and hardly at all where they are large. */
import { attend, normal, openBackend } from "../mod.ts";

await using backend = await openBackend("wasm"); // one backend for all calls
const sizes = [16, 64, 256, 1024];
console.log(["spread", "mean ‖x+y‖²", "mean of V", ...sizes.map((m) => `m = ${m}`)].join("\t"));
for (const sd of [0.3, 0.6, 1]) {
  const [q, k, v] = [1, 2, 3].map((seed) => normal([512, 32], { seed, sd: seed < 3 ? sd : 1 }));
  const errors = [];
  let [phi, uniform] = [0, 0];
  for (const numFeatures of sizes) {
    const { error } = (await attend(q, k, v, { numFeatures, backend, redraws: 5 })).report;
    errors.push(error!.redraws!.value.toFixed(3)); // the mean of five projections: one alone may be lucky
    [phi, uniform] = [error!.phi, error!.uniformBaseline];
  }
  console.log([sd, phi.toFixed(1), uniform.toFixed(3), ...errors].join("\t"));
}
