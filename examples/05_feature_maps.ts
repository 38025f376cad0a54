/** What features are: φ(q)·φ(k) estimates exp(q·k/√d). Trigonometric ones fail where that is small, positive ones where ‖q + k‖ is large. */
import { FEATURE_MAPS, phi, type Tensor, tensor } from "../mod.ts";

const d = 16;
const unit = (angle: number) =>
  Array.from({ length: d }, (_, c) => c === 0 ? Math.cos(angle) : c === 1 ? Math.sin(angle) : 0);
const dot = (a: Tensor, b: Tensor) => Array.from(a.data).reduce((sum, value, i) => sum + value * b.data[i], 0);
/** Root mean squared error of the estimate over `draws` projections, as a fraction of the weight. */
async function error(features: string, q: Tensor, k: Tensor, draws = 200): Promise<number> {
  const weight = Math.exp(dot(q, k) / Math.sqrt(d));
  let sum = 0;
  for (let seed = 0; seed < draws; seed++) {
    const settings = { features, numFeatures: 32, seed };
    sum += (dot(await phi(q, settings), await phi(k, settings)) / weight - 1) ** 2;
  }
  return Math.sqrt(sum / draws);
}

console.log("angle\tweight\t" + ["trigonometric", "positive", "hyperbolic"].join("\t"));
for (const angle of [30, 90, 150]) {
  const length = 2.4; // of q and k; scaled rows x, y are this over d^(1/4)
  const [q, k] = [0, angle * Math.PI / 180].map((a) => tensor(unit(a).map((u) => length * u), [1, d]));
  const errors = [];
  for (const name of ["trigonometric", "positive", "hyperbolic"]) errors.push((await error(name, q, k)).toFixed(2));
  console.log([`${angle}°`, Math.exp(dot(q, k) / Math.sqrt(d)).toFixed(3), ...errors].join("\t"));
}

const softmax = FEATURE_MAPS.filter(({ kernel }) => kernel === "softmax").map(({ name }) => name);
console.log(`maps that estimate softmax: ${softmax.join(", ")}`);
