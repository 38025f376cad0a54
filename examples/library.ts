/** Attention from a script: a seeded projection, one backend, and exact softmax of the same rows beside it. */
import { type Attention, compareOutputs, openFirst, parametersFor, parseBackendList, type Tile } from "../mod.ts";

const [rows, heads, width] = [2000, 2, 32];
const cols = heads * width;
let seed = 1;
const random = () => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
const tensor = (): Tile => ({ start: 0, rows, cols, data: Float32Array.from({ length: rows * cols }, random) });
const [q, k, v] = [tensor(), tensor(), tensor()];

const attention: Attention = {
  features: "hyperbolic",
  numFeatures: 128,
  projection: "orthogonal",
  norms: "chi",
  seed: 0,
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
};
const shape = { heads, kvHeads: heads, headDim: width, valueDim: width, causal: false, tileRows: rows };
const parameters = parametersFor(attention, { queryRows: rows, keyRows: rows, ...shape });

const { backend } = await openFirst(parseBackendList("scalar"));
await using _backend = backend;
await using session = await backend.prepare({ ...shape, parameters });
await session.absorb(k, v);
const approx = await session.emit(q);

await using exact = await backend.prepareExact({ ...shape, scale: width ** -0.5, queryRows: rows });
await exact.pose(q, []);
await exact.absorb(k, v);
const truth = await exact.emit();

const average = new Float64Array(rows * cols);
for (let i = 0; i < rows * cols; i++) average[i % cols] += v.data[i] / rows;
for (let i = cols; i < rows * cols; i++) average[i] = average[i % cols];
const { relativeL2, uniformBaseline, skill } = compareOutputs(approx, truth, { ...truth, data: average }, heads, rows);
console.log(
  `relative L2 ${relativeL2.value.toFixed(3)}, uniform ${uniformBaseline.toFixed(3)}, skill ${skill.toFixed(3)}`,
);
