/** Near-and-far attention on wasm, beside the laws of tests/conformance: threads, builds, lent memory, sizes past every block, what is remembered. */
import { describe, expect, test } from "bun:test";
import type { KeyRows } from "../../src/backend.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { wasm, type WasmBackend } from "../../src/backends/wasm.ts";
import { TopKeys } from "../../src/backends/wasm_top.ts";
import { ClusterIds } from "../../src/backends/wasm_ids.ts";
import { TransientError, UnsupportedError } from "../../src/errors.ts";
import { type NearFarPlan, nearRows } from "../../src/near_far.ts";
import type { Tile } from "../../src/tensor.ts";
import { expectNear } from "../conformance/dense.ts";
import { makeProblem, mapTile, type Problem, rowsOf, type Sizes } from "../conformance/harness.ts";
import { denseNearFar, type NearFar, nearFarPlan, runNearFar } from "../conformance/near_far_dense.ts";

const FIELDS: readonly NearFar[] = [
  { far: "none", window: 20, heavy: 3 },
  { far: "taylor1", window: 20, heavy: 3 },
  { far: "hermite2", window: 70, heavy: 3 },
  { far: "clusters", window: 20, heavy: 3, clusters: 70 },
  { far: "clusters", window: 20, heavy: 3, clusters: 12, top: 3 },
];

describe("threads and builds", () => {
  const builds = ["relaxed", "simd"].flatMap((variant) => [1, 2, 5].map((threads) => ({ variant, threads })));
  // The definition is slow: it is evaluated once for all builds.
  const cases = [false, true].flatMap((causal) => {
    const problem = makeProblem({ causal, keyRows: 300, heads: 3, headDim: 20, valueDim: 17 });
    return FIELDS.map((settings) => ({ problem, plan: nearFarPlan(problem, settings, 128) }));
  });
  let references: ReturnType<typeof denseNearFar>[] | null = null;
  test.each(builds)("$variant × $threads: the same numbers, to rounding", async ({ variant, threads }) => {
    references ??= cases.map(({ problem, plan }) => denseNearFar(problem, plan));
    await using backend = await wasm.open({ named: true, threads, variant, eager: threads > 1 });
    for (const [i, { problem, plan }] of cases.entries()) {
      expectNear(await runNearFar(backend, problem, plan), references[i], "f32");
    }
  }, 60_000);
});

describe("sizes", () => {
  test.each<[string, Sizes, NearFar]>([
    ["keys, values and clusters of several panels", { headDim: 70, valueDim: 129, heads: 1, keyRows: 200 }, {
      far: "clusters",
      clusters: 130,
      window: 33,
    }],
    ["an odd number of clusters, uneven groups", { heads: 5, kvHeads: 3, headDim: 7, keyRows: 200 }, {
      far: "clusters",
      clusters: 67,
      window: 7,
      heavy: 5,
    }],
    ["more heavy keys than a block", { keyRows: 300 }, { far: "taylor1", window: 17, heavy: 150 }],
    ["heavy keys and clusters", { keyRows: 300 }, { far: "clusters", clusters: 20, window: 17, heavy: 150 }],
    ["a window of several groups of keys", { keyRows: 700, heads: 1 }, { far: "taylor1", window: 300, heavy: 70 }],
    ["the same, clusters", { keyRows: 700, heads: 1 }, { far: "clusters", clusters: 9, window: 300 }],
    ["whole clusters of many chunks, a wide window and many heavy keys", { keyRows: 700, heads: 3, headDim: 5 }, {
      far: "clusters",
      clusters: 5,
      top: 2,
      window: 90,
      heavy: 150,
    }],
    ["wide keys and values, whole clusters after exact rows", { headDim: 70, valueDim: 129, heads: 1, keyRows: 300 }, {
      far: "clusters",
      clusters: 70,
      top: 9,
      exactRows: 100,
    }],
    ["exact rows across tiles", { keyRows: 260 }, { far: "clusters", heavy: 4, window: 9, exactRows: 150 }],
    ["wide keys of order 2", { headDim: 67, heads: 1, keyRows: 140 }, { far: "taylor2", window: 3, heavy: 2 }],
  ])("%s", async (_name, sizes, settings) => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    for (const causal of [false, true]) {
      const problem = makeProblem({ weighted: true, ...sizes, causal });
      const plan = nearFarPlan(problem, { ...settings, exactRows: causal ? settings.exactRows ?? 0 : 0 }, 128);
      expectNear(await runNearFar(backend, problem, plan), denseNearFar(problem, plan), "f32");
    }
  }, 60_000);

  test("keys far from 0 lose no more digits than their distances do", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    for (const causal of [false, true]) {
      const problem = makeProblem({ keyRows: 140, causal });
      const near = { ...problem, k: mapTile(problem.k, (x) => Math.fround(Math.round(x * 64) / 64)) };
      const shifted = { ...near, k: mapTile(near.k, (x) => x + 64) }; // exact in float32
      const plan = nearFarPlan(near, { far: "hermite2", window: 6 }, 64);
      const reference = denseNearFar(near, plan);
      // Logits themselves are of the shifted keys: their magnitude is what rounds.
      const { rounding } = denseNearFar(shifted, nearFarPlan(shifted, { far: "none", window: 6 }, 64));
      const exponent = Math.max(rounding.exponent, reference.rounding.exponent);
      const expected = { ...reference, rounding: { ...reference.rounding, exponent } };
      expectNear(await runNearFar(backend, shifted, plan), expected, "f32");
    }
  });
});

/** Tiles of a problem by the plan, in the backend's own memory or out of it. */
function tilesOf(problem: Problem, plan: NearFarPlan, from: number, lend: (tile: Tile) => Tile) {
  const to = Math.min(problem.q.rows, from + plan.tileRows);
  const { start, end } = nearRows(plan, from, to, problem.k.rows);
  const rows = (first: number, last: number): KeyRows => {
    return {
      k: lend(rowsOf(problem.k, first, last)),
      v: lend(rowsOf(problem.v, first, last)),
      weights: problem.weights?.slice(first, last),
    };
  };
  return { q: lend(rowsOf(problem.q, from, to)), near: rows(start, end), own: rows(from, to) };
}

/** All calls are made before the first is awaited. */
async function runAtOnce(
  backend: WasmBackend,
  problem: Problem,
  plan: NearFarPlan,
  lend: (tile: Tile) => Tile,
  gone: (tiles: ReturnType<typeof tilesOf>) => void,
): Promise<Float64Array> {
  await using session = await backend.prepareNearFar!(plan);
  const tiles = Array.from({ length: Math.ceil(problem.q.rows / plan.tileRows) }, (_, i) => {
    return tilesOf(problem, plan, i * plan.tileRows, lend);
  });
  const calls: Promise<Tile>[] = [];
  const absorbed: Promise<void>[] = [];
  const absorb = ({ own }: typeof tiles[number]) => absorbed.push(session.absorb(own.k, own.v, own.weights));
  if (!plan.causal) tiles.forEach(absorb);
  for (const some of tiles) {
    calls.push(session.emit(some.q, some.near));
    if (plan.causal) absorb(some);
    gone(some);
  }
  await Promise.all(absorbed);
  return Float64Array.from((await Promise.all(calls)).flatMap(({ data }) => [...data]));
}

describe("calls", () => {
  test(
    "tiles may be overwritten when a call returns, lent ones are not copied, and calls in flight take effect in order",
    async () => {
      const clear = ({ q, near, own }: ReturnType<typeof tilesOf>) => {
        for (const tile of [q, near.k, near.v, own.k, own.v]) tile.data.fill(NaN);
        near.weights?.fill(NaN);
        own.weights?.fill(NaN);
      };
      for (const causal of [false, true]) {
        const problem = makeProblem({ keyRows: 64 * 9 + 5, heads: 1, causal, weighted: true });
        for (const settings of FIELDS) {
          const plan = nearFarPlan(problem, settings, 64);
          const reference = denseNearFar(problem, plan);
          await using backend = await wasm.open({ named: true, threads: 2, eager: true });
          expectNear(await runAtOnce(backend, problem, plan, (tile) => tile, clear), reference, "f32");
          const lend = (tile: Tile) => {
            const data = backend.allocate(tile.data.length);
            data.set(tile.data);
            return { ...tile, data };
          };
          expectNear(await runAtOnce(backend, problem, plan, lend, () => {}), reference, "f32");
        }
      }
    },
    60_000,
  );

  test("outputs go to the memory that is given, lent or not", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const problem = makeProblem({ keyRows: 64 });
    const plan = nearFarPlan(problem, { far: "taylor1", window: 4 }, 64);
    await using session = await backend.prepareNearFar!(plan);
    await session.absorb(problem.k, problem.v);
    const near = { k: problem.k, v: problem.v };
    const expected = (await session.emit(problem.q, near)).data;
    const length = 64 * plan.heads * plan.valueDim;
    for (const into of [new Float32Array(length + 7), backend.allocate(length + 7)]) {
      const { data } = await session.emit(problem.q, near, into);
      expect(data.buffer).toBe(into.buffer);
      expect(Array.from(data)).toEqual(Array.from(expected));
    }
  });

  test("causal: rows may be emitted twice before they are absorbed", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    await using reference = await scalar.open({ named: true });
    const problem = makeProblem({ keyRows: 192, causal: true });
    for (const settings of FIELDS) {
      const plan = nearFarPlan(problem, settings, 64);
      await using session = await backend.prepareNearFar!(plan);
      await using expected = await reference.prepareNearFar!(plan);
      const rows = (from: number, to: number) => ({ k: rowsOf(problem.k, from, to), v: rowsOf(problem.v, from, to) });
      for (const from of [0, 64, 128]) {
        const { start } = nearRows(plan, from, from + 64, 192);
        const outputs: ArrayLike<number>[] = [];
        for (const one of [session, session, expected]) {
          outputs.push((await one.emit(rowsOf(problem.q, from, from + 64), rows(start, from + 64))).data);
        }
        expect(outputs[1]).toEqual(outputs[0]);
        for (const one of [session, expected]) await one.absorb(rows(from, from + 64).k, rows(from, from + 64).v);
      }
      const heavy = async (one: typeof session) =>
        (await one.save()).heavy.map((keys) => keys.map(({ row, score }) => [row, score]).sort());
      expect(await heavy(session)).toEqual(await heavy(expected));
    }
  });
});

describe("what is remembered of rows", () => {
  test("clusters of other rows: after reset and load, and where only some are known", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const [one, two] = [1, 2].map((seed) => makeProblem({ keyRows: 128, seed }));
    const plan = nearFarPlan(one, { far: "clusters", window: 30, clusters: 12 }, 128);
    const reference = denseNearFar(two, plan);
    const emit = async (session: Awaited<ReturnType<NonNullable<typeof backend.prepareNearFar>>>) =>
      (await session.emit(two.q, { k: two.k, v: two.v })).data;
    await using session = await backend.prepareNearFar!(plan);
    await session.absorb(one.k, one.v);
    session.reset();
    await session.absorb(two.k, two.v);
    expectNear(await emit(session), reference, "f32");
    const state = await session.save();
    await using loaded = await backend.prepareNearFar!(plan);
    await loaded.absorb(one.k, one.v);
    await loaded.load(state);
    expectNear(await emit(loaded), reference, "f32");
    await using late = await backend.prepareNearFar!(plan);
    await late.absorb(rowsOf(two.k, 64, 128), rowsOf(two.v, 64, 128));
    await late.absorb(rowsOf(two.k, 0, 64), rowsOf(two.v, 0, 64));
    expectNear(await emit(late), reference, "f32");
  });

  test("with top, reset forgets the keys, and a state without them is refused", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const [one, two] = [1, 2].map((seed) => makeProblem({ keyRows: 128, seed }));
    const plan = nearFarPlan(one, { far: "clusters", clusters: 6, top: 2 }, 128);
    await using session = await backend.prepareNearFar!(plan);
    await session.absorb(one.k, one.v);
    await session.emit(one.q, null);
    session.reset();
    await session.absorb(two.k, two.v);
    expectNear((await session.emit(two.q, null)).data, denseNearFar(two, plan), "f32");
    await expect(session.load(await session.save())).rejects.toThrow("top clusters");
  });

  test("causal, with top: rows that were absorbed without queries, all calls at once", async () => {
    const problem = makeProblem({ keyRows: 64 * 9, causal: true, weighted: true });
    const plan = nearFarPlan(problem, { far: "clusters", clusters: 6, top: 2, window: 9 }, 64);
    const reference = denseNearFar(problem, plan);
    await using backend = await wasm.open({ named: true, threads: 2, eager: true });
    await using session = await backend.prepareNearFar!(plan);
    const width = plan.heads * plan.valueDim;
    const outputs: { readonly from: number; readonly out: Promise<Tile> }[] = [];
    const absorbed: Promise<void>[] = [];
    for (let tile = 0; tile < 9; tile++) {
      const { q, near, own } = tilesOf(problem, plan, 64 * tile, (some) => some);
      if ([0, 3, 8].includes(tile)) outputs.push({ from: 64 * tile, out: session.emit(q, near) });
      absorbed.push(session.absorb(own.k, own.v, own.weights));
    }
    await Promise.all(absorbed);
    for (const { from, out } of outputs) {
      const part = {
        ...reference,
        out: reference.out.slice(from * width, (from + 64) * width),
        condition: reference.condition.slice(from * plan.heads, (from + 64) * plan.heads),
      };
      expectNear((await out).data, part, "f32");
    }
  });

  test("with top, rows that do not follow are refused, and memory for keys is given back", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const problem = makeProblem({ keyRows: 256 });
    const plan = nearFarPlan(problem, { far: "clusters", clusters: 6, top: 2 }, 128);
    const free = () => {
      const at = backend.shared.allocate(1);
      backend.shared.release(at);
      return at;
    };
    const before = free();
    {
      await using session = await backend.prepareNearFar!(plan);
      await session.absorb(rowsOf(problem.k, 128, 256), rowsOf(problem.v, 128, 256));
      await expect(session.absorb(rowsOf(problem.k, 0, 128), rowsOf(problem.v, 0, 128))).rejects.toThrow("in order");
    }
    expect(free()).toBe(before);
  });

  test("with top, keys past the memory for them are refused with the way out", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const plan = nearFarPlan(makeProblem({ keyRows: 128 }), { far: "clusters", clusters: 2, top: 1 }, 64);
    const places = Array.from({ length: plan.kvHeads }, () => backend.shared.allocate(64 * 4));
    const keys = new TopKeys(plan, backend.shared, 1 << 14, 8 * plan.kvHeads << 14); // 8 chunks of 32 keys per head
    const rows = (start: number) => ({
      start,
      rows: 64,
      weights: Float32Array.from({ length: 64 }, (_, i) => i % 2),
      ids: places.map(() => Int32Array.from({ length: 64 }, (_, i) => (i >> 1) % 2)),
    });
    // Half of the keys have weight: tiles fill a chunk's worth, half of it in either cluster.
    for (let start = 0; start < 8 * 64; start += 64) {
      expect(await keys.place(rows(start), places, backend.pool)).toBeTrue();
      expect(await keys.place(rows(start), places, backend.pool)).toBeFalse(); // they are there
      const given = [...backend.shared.integers(places[0], 64)];
      expect(given.map((place) => place > 0)).toEqual(given.map((_, i) => i % 2 === 1));
    }
    const more = keys.place(rows(8 * 64), places, backend.pool);
    await expect(more).rejects.toThrow(TransientError);
    await expect(more).rejects.toThrow("more than 512 rows for --top");
    await expect(more).rejects.toThrow("leave --top out");
    keys.release();
  });

  test("a ring of the last rows", () => {
    const ids = new ClusterIds(2, 100, 2 * 2 * 10); // 10 rows
    const rows = (from: number, to: number) =>
      [0, 1].map((head) => Int32Array.from({ length: to - from }, (_, i) => from + i + 50 * head));
    const read = (head: number, from: number, to: number) => {
      const into = new Int32Array(to - from);
      ids.copy(head, from, to, into);
      return [...into];
    };
    expect(ids.known(0, 9)).toEqual({ from: 0, to: 0 });
    ids.put(0, rows(0, 6));
    ids.put(6, rows(6, 13));
    expect(ids.known(0, 99)).toEqual({ from: 3, to: 13 });
    expect(ids.known(5, 8)).toEqual({ from: 5, to: 8 });
    expect(read(0, 3, 13)).toEqual([3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    expect(read(1, 8, 12)).toEqual([58, 59, 60, 61]);
    ids.put(40, rows(40, 43)); // rows that do not follow
    expect(ids.known(0, 99)).toEqual({ from: 40, to: 43 });
    expect(read(1, 41, 43)).toEqual([91, 92]);
    ids.put(43, rows(43, 54)); // more than there is room for: not remembered
    expect(ids.known(43, 54)).toEqual({ from: 43, to: 43 });
  });

  test("shared memory does not grow with the rows, and is given back", async () => {
    await using backend = await wasm.open({ named: true, threads: 2, eager: true });
    const free = () => {
      const at = backend.shared.allocate(1);
      backend.shared.release(at);
      return at;
    };
    const before = free();
    for (const causal of [false, true]) {
      for (const settings of FIELDS.filter(({ top }) => top === undefined)) {
        const problem = makeProblem({ keyRows: 256, heads: 1, headDim: 4, valueDim: 4, causal });
        const plan = nearFarPlan(problem, settings, 256);
        await using session = await backend.prepareNearFar!(plan);
        const bytes = backend.shared.byteLength;
        for (let from = 0; from < 1 << 14; from += 256) {
          const tile = ({ data, cols }: Tile) => ({ start: from, rows: 256, cols, data });
          const near = { k: tile(problem.k), v: tile(problem.v) };
          if (causal) await session.emit(tile(problem.q), near);
          await session.absorb(near.k, near.v);
        }
        expect(backend.shared.byteLength).toBe(bytes);
        expect((await session.save()).rows).toBe(1 << 14);
      }
    }
    expect(free()).toBe(before);
  }, 60_000);
});

test("refused with a reason: windows that fill the memory, causal rows without their keys", async () => {
  await using backend = await wasm.open({ named: true, threads: 1 });
  const problem = makeProblem({ causal: true });
  const prepare = (settings: NearFar) => backend.prepareNearFar!(nearFarPlan(problem, settings, 64));
  await expect(prepare({ far: "taylor1", window: 1e8 })).rejects.toThrow(UnsupportedError);
  await expect(prepare({ far: "taylor1", window: 1e8 })).rejects.toThrow("smaller --window");
  await using session = await prepare({ far: "taylor1" });
  await expect(session.emit(problem.q, null)).rejects.toThrow("their own");
});
