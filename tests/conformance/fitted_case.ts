/** Problems of maps that are fitted to their rows, with the dense evaluation of rows that are transformed in float64. */
import { type Attention, parametersFor, type Sizes as AttentionSizes, transformFor } from "../../src/attention.ts";
import { featureMap } from "../../src/feature_map.ts";
import { type Fit, fitHead } from "../../src/fitted.ts";
import { Moments } from "../../src/moments.ts";
import type { RowTransform } from "../../src/row_transform.ts";
import type { Tile } from "../../src/tensor.ts";
import { dense, type Reference } from "./dense.ts";
import { makeProblem, mapTile, type Problem, type Sizes } from "./harness.ts";

/** One attention, and what it should be. */
export interface Case {
  readonly attention: Attention;
  readonly sizes: AttentionSizes;
  /** What the map is fitted to; null: nothing, for maps of their own kernels or where it is not asked for. */
  readonly fit: Fit | null;
  /** As sessions get it: raw rows, and parameters of what kernels see of them. */
  readonly problem: Problem;
  readonly transform: RowTransform | null;
  readonly reference: Reference;
}

/** A problem whose keys have means and other spreads than the queries, fitted (unless `plain`) and with its reference. */
export function caseOf(features: string, sizes: Sizes, centred = true, plain = false): Case {
  const raw = makeProblem({ map: "positive", ...sizes });
  const { headDim, kvHeads, heads, valueDim, weights } = raw;
  const column = (at: number, width: number) => at % (width * headDim);
  const q = mapTile(raw.q, (value, at) => value * (0.3 + 0.2 * (column(at, heads) % headDim)) + 0.3);
  const k = mapTile(raw.k, (value, at) => value * (1.3 - 0.2 * (column(at, kvHeads) % headDim)) - 0.5);
  const attention: Attention = {
    features,
    numFeatures: 14,
    projection: "orthogonal",
    norms: "chi",
    seed: 3,
    causal: raw.causal,
    scale: null,
    given: null,
    compat: "exact",
    decay: raw.decay && [...raw.decay],
  };
  const map = featureMap(features);
  const [queries, keys] = [new Moments(heads, headDim, true), new Moments(kvHeads, headDim, true)];
  queries.add(q);
  keys.add(k, weights);
  const fit: Fit | null = map.kernel === "softmax" && !plain
    ? {
      source: "file",
      rows: k.rows,
      centred,
      heads: Array.from({ length: kvHeads }, (_, h) => {
        return fitHead(map, queries.ofGroup(h, kvHeads), keys.ofGroup(h, kvHeads), headDim ** -0.5, centred);
      }),
    }
    : null;
  const all = { queryRows: q.rows, keyRows: k.rows, heads, kvHeads, headDim, valueDim };
  const transform = transformFor(attention, all, fit);
  const parameters = parametersFor(attention, all, 0, fit);
  const problem = { ...raw, q, k, parameters };
  const seen = parameters.headDim;
  const moved = {
    ...problem,
    headDim: seen,
    q: move(transform, q, heads, problem, "q"),
    k: move(transform, k, kvHeads, problem, "k"),
  };
  const reference = dense(moved);
  const { rounding } = reference;
  return {
    attention,
    sizes: all,
    fit,
    problem,
    transform,
    reference: {
      ...reference,
      rounding: { ...rounding, exponent: rounding.exponent + lost(problem, transform, moved) },
    },
  };
}

/** The definition, in float64. */
function move(
  transform: RowTransform | null,
  tile: Tile,
  heads: number,
  { headDim: d, kvHeads }: Problem,
  role: "q" | "k",
): Tile {
  if (!transform) return tile;
  const width = transform.kind === "angular" ? 2 * d : d;
  const data = new Float64Array(tile.rows * heads * width);
  for (let i = 0; i < tile.rows; i++) {
    for (let h = 0; h < heads; h++) {
      const kv = Math.floor(h * kvHeads / heads);
      const x = Array.from(tile.data.subarray((i * heads + h) * d, (i * heads + h + 1) * d));
      const out = (i * heads + h) * width;
      if (transform.kind === "angular") {
        const angle = Math.PI / 2 * (i + 1) / transform.length;
        x.forEach((value, l) => {
          data[out + l] = value * Math.sin(angle);
          data[out + d + l] = value * Math.cos(angle);
        });
        continue;
      }
      const M = role === "q" ? transform.queries : transform.keys;
      const z = role === "q" ? x : x.map((value, l) => value - transform.shift[kv * d + l]);
      for (let l = 0; l < d; l++) {
        if (!M) data[out + l] = z[l];
        else if (transform.kind === "diagonal") data[out + l] = M[kv * d + l] * z[l];
        else data[out + l] = z.reduce((sum, value, c) => sum + M[(kv * d + l) * d + c] * value, 0);
      }
    }
  }
  return { ...tile, cols: heads * width, data };
}

/**
 * What exponents may lose before the kernels see a row, in units of u: a transformed coordinate is off by about u times the sum of the
 * magnitudes it is made of (matrix times row, and shift), which w'·z passes on times |w'_l|, and ‖z‖²/2 times |z_l|.
 */
function lost(
  { q, k, headDim: d, heads, kvHeads, parameters: p }: Problem,
  transform: RowTransform | null,
  moved: Problem,
): number {
  if (!transform || transform.kind === "angular") return 0;
  let most = 0;
  const look = (tile: Tile, after: Tile, count: number, M: Float64Array | null, shifted: boolean) => {
    for (let i = 0; i < tile.rows; i++) {
      for (let h = 0; h < count; h++) {
        const kv = Math.floor(h * kvHeads / count);
        let norm = 0;
        const sizes = Array.from({ length: d }, (_, l) => {
          let sum = 0;
          for (let c = 0; c < d; c++) {
            const entry = !M
              ? Number(c === l)
              : transform.kind === "diagonal"
              ? Number(c === l) * M[kv * d + l]
              : M[(kv * d + l) * d + c];
            const size = Math.abs(tile.data[(i * count + h) * d + c]) +
              (shifted ? Math.abs(transform.shift[kv * d + c]) : 0);
            sum += Math.abs(entry) * size * p.inputScale;
          }
          norm += Math.abs(after.data[(i * count + h) * d + l]) * p.inputScale * sum;
          return sum;
        });
        for (let a = 0; a < p.projections; a++) {
          const at = ((kv % p.matrices) * p.projections + a) * d;
          most = Math.max(most, norm + sizes.reduce((sum, size, l) => sum + Math.abs(p.weights[at + l]) * size, 0));
        }
      }
    }
  };
  look(q, moved.q, heads, transform.queries, false);
  const queries = most;
  most = 0;
  look(k, moved.k, kvHeads, transform.keys, true);
  return queries + most;
}
