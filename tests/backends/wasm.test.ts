/** What only the wasm backend has: threads that may be lost, builds, shared memory, a choice of register tile. */
import { describe, expect, test } from "bun:test";
import { wasm } from "../../src/backends/wasm.ts";
import { layerShares } from "../../src/backends/wasm_dense.ts";
import { SharedMemory } from "../../src/backends/wasm_memory.ts";
import { chooseFastestTile, compileKernels, instantiate, PRODUCT_BYTES } from "../../src/backends/wasm_module.ts";
import { causalPieces, cut, freeRowTasks, units } from "../../src/backends/wasm_split.ts";
import { TransientError, UsageError } from "../../src/errors.ts";
import { THREADS } from "../../src/threads.ts";
import { makeProblem, planFor, run, runExact } from "../conformance/harness.ts";

describe("threads", () => {
  test("the result is the same numbers for any number of threads, bidirectional and causal", async () => {
    for (const causal of [false, true]) {
      const problem = makeProblem({ causal, keyRows: 300, heads: 3, headDim: 20, valueDim: 17, features: 70 });
      const outputs: Float64Array[] = [];
      for (const threads of [1, 2, 3, 5]) {
        await using backend = await wasm.open({ named: true, threads, eager: true });
        outputs.push(await run(backend, problem, 128));
      }
      for (const out of outputs.slice(1)) {
        const apart = Math.max(...out.map((x, i) => Math.abs(x - outputs[0][i])));
        expect(apart).toBeLessThan(1e-5); // rounding only: sums are grouped differently
      }
    }
  });

  test("a lost thread is a clear error for what waits and for what comes", async () => {
    await using backend = await wasm.open({ named: true, threads: 2, eager: true });
    const problem = makeProblem({ keyRows: 64 });
    await using session = await backend.prepare(planFor(problem, 64));
    await session.absorb(problem.k, problem.v);
    await backend.pool.terminate(1);
    await Bun.sleep(50);
    const failed = await session.emit(problem.q).catch((error) => error);
    expect(failed).toBeInstanceOf(TransientError);
    expect(failed.message).toContain("--threads 1");
  });

  test("small jobs stay on the main thread once threads have started, and are the same numbers", async () => {
    const problem = makeProblem({ keyRows: 40 });
    await using here = await wasm.open({ named: true, threads: 2 });
    const wanted = [await run(here, problem, 64), await runExact(here, problem, 64)];
    await using backend = await wasm.open({ named: true, threads: 2 });
    const usual = THREADS.compute;
    Object.assign(THREADS, { compute: new URL("data:text/javascript,setInterval(() => {}, 1000)") }); // answers nothing
    try {
      backend.pool.start();
    } finally {
      Object.assign(THREADS, { compute: usual });
    }
    expect([await run(backend, problem, 64), await runExact(backend, problem, 64)]).toEqual(wanted);
    const long = makeProblem({ keyRows: 4000, features: 256, headDim: 32 });
    const session = await backend.prepare(planFor(long, 4000)); // not disposed of: that waits for its threads
    const absorbed = session.absorb(long.k, long.v).then(() => "done", () => "given up when it closes");
    expect(await Promise.race([absorbed, Bun.sleep(50).then(() => "waits")])).toBe("waits");
    await backend.pool[Symbol.asyncDispose]();
    expect(await absorbed).toBe("given up when it closes");
  });

  test("a closed backend leaves no thread: its process ends by itself", async () => {
    const code = `
      import { wasm } from ${JSON.stringify(new URL("../../src/backends/wasm.ts", import.meta.url).pathname)};
      const backend = await wasm.open({ named: true, threads: 3, eager: true });
      await backend[Symbol.asyncDispose]();
      console.log("closed");`;
    const child = Bun.spawn([process.execPath, "-e", code], { stdout: "pipe", stderr: "pipe" });
    const killed = setTimeout(() => child.kill(), 20_000);
    expect(await child.exited).toBe(0);
    clearTimeout(killed);
    expect(await new Response(child.stdout).text()).toContain("closed");
  });

  test("an unknown build or too many threads is wrong usage", async () => {
    await expect(wasm.open({ named: true, variant: "avx" })).rejects.toBeInstanceOf(UsageError);
    await expect(wasm.open({ named: true, threads: 5000 })).rejects.toBeInstanceOf(UsageError);
  });
});

test("both register tiles and both builds give the same exact softmax, to rounding", async () => {
  const problem = makeProblem({ keyRows: 150, headDim: 33, valueDim: 21 });
  const outputs: Float64Array[] = [];
  for (const variant of ["relaxed", "simd"]) {
    await using backend = await wasm.open({ named: true, threads: 1, variant });
    outputs.push(await runExact(backend, problem, 64));
  }
  expect(Math.max(...outputs[0].map((x, i) => Math.abs(x - outputs[1][i])))).toBeLessThan(1e-5);
});

test("the tile's choice changes no bit", async () => {
  const shared = new SharedMemory();
  const { module } = await compileKernels("simd");
  const kernels = instantiate(module, shared.memory);
  const at = shared.allocate(PRODUCT_BYTES);
  const numbers = shared.floats(at, PRODUCT_BYTES / 4);
  const results = [0, 1].map((tile) => {
    numbers.forEach((_, i) => numbers[i] = Math.sin(i));
    kernels.chooseTile(tile);
    kernels.productRounds(at, 1);
    return numbers.slice();
  });
  expect(results[0]).toEqual(results[1]);
  expect([0, 1]).toContain(chooseFastestTile(kernels, at));
});

test("exact softmax does not mind huge keys: powers of two between q and k change no bit", async () => {
  const problem = makeProblem({ keyRows: 90, headDim: 9 });
  const scaled = (factor: number, tile: typeof problem.q) => ({ ...tile, data: tile.data.map((x) => x * factor) });
  const far = { ...problem, q: scaled(2 ** -70, problem.q), k: scaled(2 ** 70, problem.k) }; // ‖k‖² leaves float32
  await using backend = await wasm.open({ named: true, threads: 1 });
  expect(await runExact(backend, far)).toEqual(await runExact(backend, problem));
});

const LAYER = { inputs: 100, outputs: 200, weight: new Float32Array(20_000), bias: null, activation: "none" } as const;

describe("shared memory", () => {
  test("a run gives back what it borrowed", async () => {
    await using backend = await wasm.open({ named: true, threads: 1 });
    const before = backend.shared.byteLength;
    for (let i = 0; i < 200; i++) backend.release(backend.allocate(1 << 18));
    expect(backend.shared.byteLength - before).toBeLessThan(4 << 20); // one array of 1 MiB, not two hundred
  });

  test("a layer gives back what it took, also when there is too little", async () => {
    await using backend = await wasm.open({ named: true, threads: 2 });
    const layer = (tileRows: number) => backend.prepareLinear({ ...LAYER, tileRows });
    const firstFree = () => {
      const at = backend.shared.allocate(1);
      backend.shared.release(at);
      return at;
    };
    const before = firstFree();
    await (await layer(1000))[Symbol.asyncDispose]();
    await expect(layer(2e7)).rejects.toBeInstanceOf(TransientError);
    expect(firstFree()).toBe(before);
  });

  test("areas never overlap, freed ones are used again, and lent arrays are known by address", () => {
    const shared = new SharedMemory();
    const [a, b, c] = [10, 70_000, 5000].map((bytes) => shared.allocate(bytes));
    expect(a).toBeGreaterThan(0);
    expect(b).toBeGreaterThanOrEqual(a + 4096);
    expect(c).toBeGreaterThanOrEqual(b + 70_000);
    shared.release(b);
    expect(shared.allocate(60_000)).toBe(b);
    expect(() => shared.release(1)).toThrow();
    const lent = shared.lend(100);
    expect(shared.addressOf(lent.subarray(3))).toBe(lent.byteOffset + 12);
    expect(shared.addressOf(new Float32Array(3))).toBeNull();
  });

  test("more than 4 GiB is refused with a way out", () => {
    const shared = new SharedMemory();
    expect(() => shared.allocate(5 * 2 ** 30)).toThrow(TransientError);
    expect(() => shared.allocate(5 * 2 ** 30)).toThrow(/--tile/);
  });
});

describe("who computes what", () => {
  test("tasks cover every head and row once", () => {
    for (const [heads, rows, threads] of [[8, 1000, 2], [8, 1000, 3], [1, 130, 4], [3, 1, 2], [2, 0, 3]]) {
      const seen = new Set<string>();
      for (const { head, rows: { from, to } } of freeRowTasks(heads, rows, threads)) {
        expect(from).toBeLessThan(to);
        for (let i = from; i < to; i++) {
          expect(seen.has(`${head},${i}`)).toBeFalse();
          seen.add(`${head},${i}`);
        }
      }
      expect(seen.size).toBe(heads * rows);
    }
  });

  test("causal rows are cut where heads would leave threads idle", () => {
    const cases: [number, number, number][] = [[8, 2, 1], [8, 3, 1], [1, 2, 2], [3, 2, 2], [2, 8, 8], [5, 4, 4], [
      1,
      1,
      1,
    ]];
    for (const [heads, threads, pieces] of cases) expect(causalPieces(heads, threads)).toBe(pieces);
  });

  test("shares of a layer cover every row and panel once, and few rows are split by panels", () => {
    for (
      const [rows, panels, threads] of [[1000, 3, 2], [1, 10, 2], [64, 10, 3], [130, 1, 4], [0, 5, 2], [192, 40, 2]]
    ) {
      const seen = new Set<string>();
      for (const share of layerShares(rows, panels, threads)) {
        for (let i = share.rows.from; i < share.rows.to; i++) {
          for (let p = share.panels.from; p < share.panels.to; p++) {
            expect(seen.has(`${i},${p}`)).toBeFalse();
            seen.add(`${i},${p}`);
          }
        }
      }
      expect(seen.size).toBe(rows * panels);
    }
    expect(layerShares(1, 10, 2).map(({ panels }) => panels)).toEqual([{ from: 0, to: 5 }, { from: 5, to: 10 }]);
  });

  test("units cover every projection of every head once, in whole panels", () => {
    for (
      const [heads, m, panel, threads] of [[8, 256, 16, 2], [1, 256, 16, 2], [8, 100, 16, 3], [1, 7, 16, 4], [
        1,
        128,
        64,
        2,
      ]]
    ) {
      const all = units(heads, m, panel, threads);
      for (let head = 0; head < heads; head++) {
        const ranges = all.filter((unit) => unit.head === head).map((unit) => unit.projections);
        expect(ranges.every(({ from }) => from % panel === 0)).toBeTrue();
        expect(ranges.reduce((sum, { from, to }) => sum + to - from, 0)).toBe(m);
      }
    }
    expect(cut(10, 3, 4)).toEqual([{ from: 0, to: 4 }, { from: 4, to: 8 }, { from: 8, to: 10 }]);
  });
});
