/** Writes a plan and its projections into shared memory, in the layout of kernels/wasm/assembly/plan.ts. */
import { ACTIVATIONS, type MapParameters } from "../feature_map.ts";
import type { AttentionShape, ExactPlan, Plan } from "../plan.ts";
import type { SharedMemory } from "./wasm_memory.ts";

/** Projections of a panel of a dense W. */
const PANEL = 16;
export const FIELDS = 26;
/** Base-2 exponents above M that are tolerated before M is raised (kernels/wasm/assembly/state.ts). */
const SLACK = 24;
const FAMILIES = { exp: 0, trig: 1, pointwise: 2, hybrid: -1 } as const; // hybrid: refused before

/** A plan in memory, with the areas it owns. */
export interface PlanArea {
  /** Its address, the first argument of every kernel. */
  readonly at: number;
  /** Projections handled together; units start at multiples of it. */
  readonly panel: number;
  /** d_v rounded up to 16: numbers per row of S. */
  readonly valueLine: number;
  release(): void;
}

/** Fields that every plan has. */
export function writeShape(shared: SharedMemory, at: number, shape: AttentionShape): Int32Array {
  const { heads, kvHeads, headDim, valueDim } = shape;
  const ints = shared.integers(at, FIELDS);
  ints.fill(0);
  ints[0] = headDim;
  ints[1] = valueDim;
  ints[2] = paddedValues(valueDim);
  ints[8] = heads * headDim * 4;
  ints[9] = kvHeads * headDim * 4;
  ints[10] = kvHeads * valueDim * 4;
  ints[11] = heads * valueDim * 4;
  ints[12] = heads;
  return ints;
}

/** d_v rounded up to whole products. */
export const paddedValues = (valueDim: number): number => Math.ceil(valueDim / 16) * 16;

/** A plan of exact attention. */
export function writeExactPlan(shared: SharedMemory, plan: ExactPlan): PlanArea {
  const at = shared.allocate(FIELDS * 4);
  writeShape(shared, at, plan);
  const floats = shared.floats(at, FIELDS);
  floats[22] = plan.scale * Math.LOG2E;
  floats[23] = plan.tight ? 0 : SLACK;
  return { at, panel: PANEL, valueLine: paddedValues(plan.valueDim), release: () => shared.release(at) };
}

/** A plan of linear attention with its W: panels of 16 projections, or signs and factors of Hadamard blocks. */
export function writePlan(shared: SharedMemory, plan: Plan): PlanArea {
  const { parameters } = plan;
  const { map, inputScale, gain, epsilon } = parameters;
  // A transform of fewer than 16 lines saves nothing, and panels must be even.
  const hadamard = parameters.hadamard && parameters.hadamard.size >= PANEL ? parameters.hadamard : null;
  const at = shared.allocate(FIELDS * 4);
  const owned = [at];
  const panel = hadamard ? hadamard.size : PANEL;
  // Exponents are kept in base 2: what multiplies an input carries log₂e for the exp family.
  const base = map.family === "exp" ? inputScale * Math.LOG2E : inputScale;
  const ints = writeShape(shared, at, plan);
  const floats = shared.floats(at, FIELDS);
  ints[3] = map.featuresPerProjection;
  ints[4] = FAMILIES[map.family];
  ints[5] = map.activation ? ACTIVATIONS.indexOf(map.activation) : 0;
  floats[6] = gain;
  floats[7] = epsilon;
  const half = 0.5 * inputScale ** 2 * Math.LOG2E;
  floats[15] = map.family === "exp" ? -half : map.family === "trig" ? half : 0;
  ints[21] = panel;
  const take = (bytes: number): number => {
    const area = shared.allocate(bytes);
    owned.push(area);
    return area;
  };
  if (hadamard) writeHadamard(shared, ints, parameters, base, take);
  else writeWeights(shared, ints, parameters, base, take);
  if (map.family === "exp") writeBiases(shared, ints, parameters, take);
  const release = () => owned.forEach((area) => shared.release(area));
  return { at, panel, valueLine: paddedValues(plan.valueDim), release };
}

type Take = (bytes: number) => number;

/** Biases of key and query together: both are in a unit's exponents, so that queries are spared theirs (wasm_state.ts). */
function writeBiases(shared: SharedMemory, ints: Int32Array, { bias, projections }: MapParameters, take: Take): void {
  ints[24] = take(bias.length * 4);
  ints[25] = projections * 4;
  shared.floats(ints[24], bias.length).set(bias.map((exponent) => 2 * exponent * Math.LOG2E));
}

function writeWeights(shared: SharedMemory, ints: Int32Array, p: MapParameters, scale: number, take: Take): void {
  const { headDim: d, projections: m, matrices, weights } = p;
  const panels = Math.ceil(m / PANEL);
  const bytes = panels * PANEL * d * 4;
  const at = take(matrices * bytes);
  const packed = shared.floats(at, matrices * bytes / 4);
  packed.fill(0);
  for (let matrix = 0; matrix < matrices; matrix++) {
    for (let a = 0; a < m; a++) {
      const to = matrix * (bytes / 4) + Math.floor(a / PANEL) * PANEL * d + a % PANEL;
      const from = (matrix * m + a) * d;
      for (let l = 0; l < d; l++) packed[to + l * PANEL] = weights[from + l] * scale;
    }
  }
  ints[13] = at;
  ints[14] = bytes;
}

function writeHadamard(shared: SharedMemory, ints: Int32Array, p: MapParameters, scale: number, take: Take): void {
  const { projections: m, matrices } = p;
  const { size, signs, norms } = p.hadamard!;
  const blocks = Math.ceil(m / size);
  const signAt = take(signs.length * 16);
  const masks = shared.integers(signAt, signs.length * 4);
  signs.forEach((sign, i) => masks.fill(sign < 0 ? -(2 ** 31) : 0, 4 * i, 4 * i + 4));
  const factorAt = take(matrices * blocks * size * 4);
  const factors = shared.floats(factorAt, matrices * blocks * size);
  factors.fill(0);
  for (let matrix = 0; matrix < matrices; matrix++) {
    for (let a = 0; a < m; a++) factors[matrix * blocks * size + a] = norms[matrix * m + a] * scale * size ** -1.5;
  }
  ints[16] = size;
  ints[17] = signAt;
  ints[18] = blocks * 3 * size * 16;
  ints[19] = factorAt;
  ints[20] = blocks * size * 4;
}
