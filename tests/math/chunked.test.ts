/**
 * Causal attention in chunks (kernels/README.md §4): the formulas that float32 backends use, written here in float64 and
 * driven by the session those backends share, against the sequential pass.
 */
import { describe, expect, test } from "bun:test";
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { absorbKeys } from "../../kernels/scalar/keys.ts";
import { type OwnRows, TiledSession, type TileKernels, type TileOutput } from "../../src/backends/tiled.ts";
import type { MapParameters } from "../../src/feature_map.ts";
import { copyState, emptyState, mergeInto, type State } from "../../src/state.ts";
import type { FloatArray, Tile } from "../../src/tensor.ts";
import {
  ALL_MAPS,
  distance,
  gaussian,
  linear,
  parametersOf,
  type Problem,
  type Rows,
  rowsOf,
  tile,
} from "./harness.ts";

const D = 6, DV = 3, SCALE = 1 / Math.sqrt(D);
const SHAPE = { heads: 1, kvHeads: 1, headDim: D, valueDim: DV };

/** One head. Looks ahead inside the chunk for the maximum c′, as every chunked kernel does, so denominators can underflow. */
class ChunkKernels implements TileKernels {
  constructor(readonly p: MapParameters) {}

  async keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    const state = emptyState(1, this.p.features, DV);
    absorbKeys(this.p, SHAPE, state, k, v, weights);
    return state;
  }

  async queries(q: Tile, state: State): Promise<TileOutput> {
    return this.#chunk(q, null, state);
  }

  async causal(q: Tile, own: OwnRows, state: State): Promise<TileOutput & { own: State }> {
    return { ...this.#chunk(q, own, state), own: await this.keys(own.k, own.v, own.weights) };
  }

  /** num = P (f⊙S) + tril(P Kᵀ) V, den = P (f⊙z) + tril(P Kᵀ) 1, both relative to c′ and to each row's maximum. */
  #chunk(q: Tile, own: OwnRows | null, before: State): TileOutput {
    const { features: r } = this.p;
    const row = new FeatureRow(this.p);
    const n = own?.k.rows ?? 0;
    const g = new Float64Array(n * r), e = new Float64Array(n * r);
    const c = before.c.slice();
    for (let j = 0; j < n; j++) {
      row.key(0, own!.k.data, j * D, g, e, j * r);
      for (let a = 0; a < r; a++) {
        e[j * r + a] += Math.log(own!.weights?.[j] ?? 1);
        c[a] = Math.max(c[a], e[j * r + a]);
      }
    }
    const result = { out: new Float32Array(q.rows * DV), denominators: new Float32Array(q.rows) };
    const gq = new Float64Array(r), eq = new Float64Array(r);
    for (let i = 0; i < q.rows; i++) {
      row.query(0, q.data, i * D, gq, eq);
      const top = eq.reduce((most, value, a) => Math.max(most, value + c[a]), -Infinity);
      if (top === -Infinity) continue;
      const P = gq.map((value, a) => value * Math.exp(eq[a] + c[a] - top));
      const numerator = new Float64Array(DV);
      let denominator = 0;
      const add = (weight: number, z: number, values: FloatArray, at: number) => {
        denominator += weight * z;
        for (let col = 0; col < DV; col++) numerator[col] += weight * values[at + col];
      };
      for (let a = 0; a < r; a++) {
        if (before.c[a] > -Infinity) add(P[a] * Math.exp(before.c[a] - c[a]), before.z[a], before.S, a * DV);
      }
      for (let j = 0; j <= i && j < n; j++) {
        let G = 0;
        for (let a = 0; a < r; a++) {
          if (e[j * r + a] > -Infinity) G += P[a] * g[j * r + a] * Math.exp(e[j * r + a] - c[a]);
        }
        add(G, 1, own!.v.data, j * DV);
      }
      result.denominators[i] = denominator;
      for (let col = 0; col < DV; col++) result.out[i * DV + col] = numerator[col] / denominator;
    }
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

async function chunked(p: MapParameters, { Q, K, V, weights }: Problem, size: number) {
  const plan = { ...SHAPE, causal: true, tileRows: size, parameters: p };
  await using session = new TiledSession(plan, new ChunkKernels(p));
  const out: Rows = [];
  for (let from = 0; from < Q.length; from += size) {
    const [q, k, v] = [Q, K, V].map((rows) => tile(rows.slice(from, from + size), from));
    const own = { k, v, weights: weights && Float64Array.from(weights.slice(from, from + size)) };
    out.push(...rowsOf(await session.emit(q, own)));
    await session.absorb(own.k, own.v, own.weights);
  }
  return { out, counts: { ...session.counts }, state: await session.save() };
}

const problem = (seed: number, rows: number, sd: number): Problem => ({
  Q: gaussian(seed, rows, D, sd),
  K: gaussian(seed + 1, rows, D, sd),
  V: gaussian(seed + 2, rows, DV),
});
const bound = (name: string) => parametersOf(name, { headDim: D, projections: 8, scale: SCALE, seed: 7 });
const SIZES = [1, 7, 32, 64, 100, 150];

test.each(ALL_MAPS)("D10 %s: chunks of any size equal the sequential pass", async (name) => {
  const at = problem(1000, 100, 0.8);
  const p = bound(name);
  const sequential = await linear(p, at, { causal: true });
  for (const size of SIZES) {
    const { out, counts, state } = await chunked(p, at, size);
    // float32 outputs; a signed map's rows near a zero denominator are large and carry their error with them
    expect(distance(out, sequential.out), `${size}`).toBeLessThan(1e-7);
    expect(counts.recomputed).toBe(0);
    expect(counts.nonPositive).toBe(sequential.counts.nonPositive);
    expect([...state.c]).toEqual([...sequential.state.c]);
    expect(distance([state.z, state.S], [sequential.state.z, sequential.state.S])).toBeLessThan(1e-12);
  }
});

describe("D15 underflow inside a chunk is repaired by the sequential rule", () => {
  test.each(["positive", "hyperbolic"])("D15 %s: inputs × 60", async (name) => {
    const at = problem(1500, 150, 60);
    const p = bound(name);
    const sequential = await linear(p, at, { causal: true });
    for (const size of SIZES) {
      const { out, counts, state } = await chunked(p, at, size);
      expect(distance(out, sequential.out), `${size}`).toBeLessThan(1e-7);
      expect(state.keys).toBe(150); // the repair absorbed rows into a copy
      expect(distance([state.z], [sequential.state.z])).toBeLessThan(1e-12);
      expect(counts.recomputed > 0, `${size}: ${counts.recomputed} rows`).toBe(size > 1);
      expect(counts.emptyRows + counts.nonPositive).toBe(0);
    }
  });

  test("D15 rows before a dominating key of their chunk are repaired and stay blind to it", async () => {
    // Keys of large norm have tiny positive features; one key 0 among them takes the whole chunk's scale.
    const at = problem(1520, 48, 60);
    at.K[40] = [0, 0, 0, 0, 0, 0];
    const p = bound("positive");
    const without = { ...at, K: at.K.map((k, i) => i === 40 ? at.K[0] : k) };
    for (const [size, repaired] of [[16, 8], [48, 40]]) {
      const { out, counts } = await chunked(p, at, size);
      expect(distance(out, (await linear(p, at, { causal: true })).out)).toBeLessThan(1e-7);
      expect(distance(out.slice(0, 40), (await chunked(p, without, 1)).out.slice(0, 40))).toBeLessThan(1e-7);
      expect(counts.recomputed).toBeGreaterThanOrEqual(repaired);
    }
  });
});

test("D13 rows of a chunk that see only masked keys are empty, not underflowed", async () => {
  const weights = Array.from({ length: 40 }, (_, j) => j < 21 ? 0 : 1);
  const at = { ...problem(1530, 40, 0.8), weights };
  for (const name of ["hyperbolic", "trigonometric", "relu"]) {
    const { out, counts } = await chunked(bound(name), at, 16);
    const sequential = await linear(bound(name), at, { causal: true });
    expect(distance(out, sequential.out)).toBeLessThan(1e-7);
    expect({ ...counts, nonPositive: 0 }).toEqual({ emptyRows: 21, nonPositive: 0, recomputed: 0 });
  }
});

test("D12 merging tile states in the session is the sequential state, and saving copies", async () => {
  const at = problem(1540, 50, 0.8);
  const p = bound("hyperbolic");
  const { state } = await chunked(p, at, 16);
  const kernels = new ChunkKernels(p);
  const merged = emptyState(1, p.features, DV);
  for (const [from, to] of [[30, 50], [0, 30]]) {
    mergeInto(merged, await kernels.keys(tile(at.K.slice(from, to)), tile(at.V.slice(from, to))));
  }
  expect(distance([copyState(merged).z, merged.S], [state.z, state.S])).toBeLessThan(1e-12);
});
