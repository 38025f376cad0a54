/** Maps whose queries and keys are transformed on the way, on every backend: the dense evaluation of rows transformed in float64. */
import { expect, test } from "bun:test";
import { type Attention, parametersFor, transformFor } from "../../src/attention.ts";
import type { Backend } from "../../src/backend.ts";
import { featureMap } from "../../src/feature_map.ts";
import { type Fit, fitHead } from "../../src/fitted.ts";
import { Moments } from "../../src/moments.ts";
import type { RowTransform } from "../../src/row_transform.ts";
import type { Tile } from "../../src/tensor.ts";
import { prepareTransformed } from "../../src/transformed.ts";
import { describeBackends } from "./backends.ts";
import { dense, expectNear, type Reference } from "./dense.ts";
import { attend, makeProblem, mapTile, planFor, type Problem, rowsOf, type Sizes } from "./harness.ts";

interface Case {
  /** As sessions get it: raw rows, and parameters of what kernels see of them. */
  readonly problem: Problem;
  readonly transform: RowTransform | null;
  readonly reference: Reference;
}

/** A problem whose keys have means and other spreads than the queries, fitted and with its reference. */
function caseOf(features: string, sizes: Sizes, centred = true): Case {
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
  };
  const map = featureMap(features);
  const [queries, keys] = [new Moments(heads, headDim, true), new Moments(kvHeads, headDim, true)];
  queries.add(q);
  keys.add(k, weights);
  const fit: Fit | null = map.kernel === "softmax"
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

const NAMES = [
  "hyperbolic",
  "trigonometric",
  "hyp-oprf",
  "sderf",
  "saderf",
  "hyp-saderf",
  "aderf",
  "hyp-aderf+sderf",
  "cosformer",
];

describeBackends("transformed rows", (backend, slow) => {
  const { precision } = backend.limits;
  const run = async (backend: Backend, { problem, transform }: Case, tileRows: number) => {
    await using session = await prepareTransformed(backend, planFor(problem, tileRows), transform);
    return await attend(session, problem, tileRows);
  };

  test.each(slow ? ["hyp-saderf", "aderf+sderf", "cosformer"] : NAMES)(
    "%s equals the dense evaluation",
    async (name) => {
      for (const causal of [false, true]) {
        const of = caseOf(name, { keyRows: slow ? 19 : 70, headDim: 6, causal, weighted: true });
        for (const tileRows of slow ? [19] : [70, 16]) {
          expectNear(await run(backend, of, tileRows), of.reference, precision);
        }
      }
    },
  );

  test("grouped queries are transformed as the key head they read; keys that stay where they are", async () => {
    for (const name of ["saderf", "aderf"]) {
      for (const centred of [true, false]) {
        const of = caseOf(name, { heads: 4, kvHeads: 2, keyRows: 20, headDim: 4 }, centred);
        expectNear(await run(backend, of, 20), of.reference, precision);
      }
    }
    const of = caseOf("cosformer", { heads: 4, kvHeads: 2, keyRows: 20, headDim: 4 });
    expectNear(await run(backend, of, 20), of.reference, precision);
  });

  test("calls on their way take effect in call order, and tiles are read before a call returns", async () => {
    for (const name of ["hyperbolic", "aderf"]) {
      const of = caseOf(name, { keyRows: 24, queryRows: 9, headDim: 4 });
      const { q, k, v } = of.problem;
      await using session = await prepareTransformed(backend, planFor(of.problem, 24), of.transform);
      const parts = [[0, 8], [8, 16], [16, 24]].map(([from, to]) => ({
        k: rowsOf(k, from, to),
        v: rowsOf(v, from, to),
      }));
      const asked = mapTile(q, (value) => value);
      const calls = [...parts.map((part) => session.absorb(part.k, part.v)), session.emit(asked)] as const;
      for (const { k, v } of parts) {
        k.data.fill(NaN);
        v.data.fill(NaN);
      }
      asked.data.fill(NaN);
      await Promise.all(calls);
      expectNear((await calls[3] as Tile).data, of.reference, precision);
      expect((await session.save()).keys).toBe(24);
    }
  });

  test("a saved state goes on elsewhere; reset forgets keys and counts", async () => {
    const of = caseOf("aderf", { keyRows: 24, headDim: 4 });
    const { q, k, v } = of.problem;
    await using session = await prepareTransformed(backend, planFor(of.problem, 24), of.transform);
    await session.absorb(rowsOf(k, 0, 10), rowsOf(v, 0, 10));
    const state = await session.save();
    session.reset();
    expect((await session.emit(q)).data.every((value) => value === 0)).toBe(true);
    expect(session.counts.emptyRows).toBe(q.rows * of.problem.heads);
    session.reset();
    await session.load(state);
    await session.absorb(rowsOf(k, 10, 24), rowsOf(v, 10, 24));
    expectNear((await session.emit(q)).data, of.reference, precision);
  });

  test("cosformer: denominators of at least 1e-6, so rows without a positive coordinate are 0, and tiny ones shrink", async () => {
    for (const causal of [false, true]) {
      const { problem, transform } = caseOf("cosformer", { heads: 1, keyRows: 12, headDim: 4, causal });
      const shrunk = (factor: number) => ({
        ...problem,
        q: mapTile(problem.q, (value) => factor * value),
        k: mapTile(problem.k, Math.abs),
      });
      const out = async (problem: Problem) => {
        await using session = await prepareTransformed(backend, planFor(problem, 12), transform);
        return await attend(session, problem, 12);
      };
      const none = { ...problem, q: mapTile(problem.q, (value) => -Math.abs(value)) };
      expect((await out(none)).every((value) => value === 0)).toBe(true);
      const positive = { ...shrunk(1), q: mapTile(problem.q, (value) => Math.abs(value) + 0.1) };
      const full = await out(positive);
      const tiny = await out({ ...positive, q: mapTile(positive.q, (value) => 2 ** -50 * value) });
      full.forEach((value, at) => expect(Math.abs(tiny[at])).toBeLessThan(1e-6 * Math.abs(value) + 1e-12));
      const half = await out({ ...positive, q: mapTile(positive.q, (value) => value / 2) });
      full.forEach((value, at) => expect(Math.abs(half[at] - value)).toBeLessThan(1e-5));
    }
  });
});
