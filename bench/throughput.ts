/**
 * Compute throughput of the backends over growing L: synthetic unit-variance rows × 0.5, seeded; file I/O excluded.
 *
 *     node_modules/.bin/bun bench/throughput.ts scalar,gpujs 1024,4096,16384 > bench/results/NAME.json
 *
 * Every figure is the median of `RUNS` runs after one warm-up; all samples are in the JSON. The table goes to stderr.
 */
import * as os from "node:os";
import process from "node:process";
import { type Attention, flopCount, isExact, parametersFor, type Sizes } from "../src/attention.ts";
import type { Backend } from "../src/backend.ts";
import { openFirst, parseBackendList } from "../src/backends/mod.ts";
import { tileRowsFor } from "../src/plan.ts";
import { RandomStream } from "../src/random.ts";
import { quantile } from "../src/statistics.ts";
import type { Tile } from "../src/tensor.ts";

const RUNS = 5;
const [HEADS, WIDTH, FEATURES] = [Number(process.env.BENCH_HEADS ?? 8), 64, 256];
const names = (process.argv[2] ?? "gpujs,scalar").split(",");
const lengths = (process.argv[3] ?? "1024,4096,16384").split(",").map(Number);
const features = (process.argv[4] ?? "positive,hyperbolic").split(",");

const results: unknown[] = [];
for (const name of names) {
  const { backend } = await openFirst(parseBackendList(name));
  await using _ = backend;
  for (const map of features) {
    for (const causal of [false, true]) {
      for (const L of lengths) results.push(await measure(backend, map, causal, L));
    }
  }
}
const machine = { processor: os.cpus()[0]?.model, threads: os.availableParallelism(), memory: os.totalmem() };
const runtime = process.versions.bun ? `Bun ${process.versions.bun}` : `Deno ${process.versions.deno}`;
console.log(
  JSON.stringify({ schema: "performer-bench/1", date: new Date().toISOString(), machine, runtime, results }, null, 1),
);

async function measure(backend: Backend, map: string, causal: boolean, L: number): Promise<unknown> {
  const attention: Attention = {
    features: map,
    numFeatures: FEATURES,
    projection: "orthogonal",
    norms: "chi",
    seed: 0,
    causal,
    scale: null,
    given: null,
  };
  const sizes: Sizes = { queryRows: L, keyRows: L, heads: HEADS, kvHeads: HEADS, headDim: WIDTH, valueDim: WIDTH };
  const parameters = isExact(attention) ? null : parametersFor(attention, sizes);
  if (!parameters) throw new RangeError("bench measures linear attention");
  const cols = HEADS * WIDTH;
  const tileRows = tileRowsFor(backend.limits, cols);
  const shape = { heads: HEADS, kvHeads: HEADS, headDim: WIDTH, valueDim: WIDTH, causal, tileRows };
  await using session = await backend.prepare({ ...shape, parameters });
  const tiles = [0, 1, 2].map((role) => makeTiles(L, cols, tileRows, role));
  const seconds: number[] = [];
  for (let run = 0; run <= RUNS; run++) {
    session.reset();
    const start = performance.now();
    const [q, k, v] = tiles;
    if (causal) {
      for (let i = 0; i < q.length; i++) {
        await session.emit(q[i], { k: k[i], v: v[i] });
        await session.absorb(k[i], v[i]);
      }
    } else {
      const absorbing = k.map((tile, i) => session.absorb(tile, v[i]));
      await Promise.all(absorbing);
      await Promise.all(q.map((tile) => session.emit(tile)));
    }
    if (run > 0) seconds.push((performance.now() - start) / 1000);
  }
  const median = quantile(Float64Array.from(seconds).sort(), 0.5);
  const gflops = flopCount(attention, sizes, parameters) / median / 1e9;
  console.error(
    `${backend.name.padEnd(8)} ${map.padEnd(12)} ${causal ? "causal       " : "bidirectional"} L ${
      String(L).padStart(7)
    } ` +
      `${Math.round(L / median).toString().padStart(9)} tokens/s ${gflops.toFixed(2).padStart(8)} GFLOP/s`,
  );
  return {
    backend: backend.name,
    device: backend.device,
    map,
    causal,
    L,
    heads: HEADS,
    tokensPerSecond: L / median,
    gflops,
    seconds,
  };
}

function makeTiles(L: number, cols: number, tileRows: number, role: number): Tile[] {
  const random = new RandomStream(role);
  const tiles: Tile[] = [];
  for (let start = 0; start < L; start += tileRows) {
    const rows = Math.min(tileRows, L - start);
    const data = Float32Array.from({ length: rows * cols }, () => (random.uniform() - 0.5) * Math.sqrt(12) * 0.5);
    tiles.push({ start, rows, cols, data });
  }
  return tiles;
}
