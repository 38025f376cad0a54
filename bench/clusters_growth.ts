/**
 * How the error of `--far clusters:C` grows with L, and how many clusters hold it: docs/clusters.md tells what came out.
 *
 *     bun bench/clusters_growth.ts PATH [--encode kmer:6 | --trained NAME | --weights MODEL --config FILE --layer N] [--head H]
 *         [--causal] [--rows 10000,30000,…] [--clusters 16,32,…] [--check 192] [--others] [--save FILE.json]
 *     bun bench/clusters_growth.ts --fit FILE.json…
 *
 * Keys of all rows are absorbed; only sampled queries are answered, so that a million rows take minutes. `--others` also measures heavy
 * keys, wider windows, taylor1 and positive features. `--fit` reads what runs saved and fits power laws.
 */
import { readFile, writeFile } from "node:fs/promises";
import process from "node:process";
import { parseArgs } from "node:util";
import type { Attention, NearFarSettings, Sizes } from "../src/attention.ts";
import type { Backend } from "../src/backend.ts";
import { openFirst, parseBackendList } from "../src/backends/mod.ts";
import { fitNearFar } from "../src/fit_near_far.ts";
import { Inputs } from "../src/inputs.ts";
import { compareOutputs } from "../src/metrics.ts";
import { BLOCK_ROWS, type NearFarPlan, nearRows } from "../src/near_far.ts";
import { sliceInputs } from "../src/row_slice.ts";
import { sizesOf } from "../src/run.ts";
import { Answers, copySampled, passKeys, readSampled, sampleRows } from "../src/sampled_rows.ts";
import { openSession } from "../src/sessions.ts";
import type { Tile } from "../src/tensor.ts";
import { TileStore } from "../src/tile_store.ts";
import { truthOf } from "../src/trial.ts";
import { fitLaws, type Measured } from "./clusters_fit.ts";
import { MemoryRows, openRows, type RowsWish } from "./long_rows.ts";

const TILE_ROWS = 1024;

const BASE: Attention = {
  ...{ features: "clusters", numFeatures: 256, projection: "orthogonal", norms: "chi", seed: 0 },
  ...{ causal: false, scale: null, given: null, compat: "exact", shrink: null },
};

const near = (
  window: number,
  heavy: number,
  far: NearFarSettings["far"],
  clusters = 0,
  top = 0,
): Partial<Attention> => {
  return { features: far, nearFar: { window, heavy, far, clusters, top } };
};

/** A tensor of `near` rows is a view of the one in memory. */
const rowsOf = (source: MemoryRows, start: number, end: number): Tile => {
  const { width: cols } = source.info;
  return { start, rows: end - start, cols, data: source.data.subarray(start * cols, end * cols) };
};

const memoryOf = async (inputs: Inputs): Promise<{ q: MemoryRows; k: MemoryRows; v: MemoryRows }> => {
  const whole = await Promise.all([inputs.q, inputs.k, inputs.v].map(async (source) => {
    const { rows, width, path } = source.info;
    for await (const { data } of source.tiles(rows)) return new MemoryRows(data as Float32Array, width, path);
    throw new RangeError("There are no rows");
  }));
  return { q: whole[0], k: whole[1], v: whole[2] };
};

/** Answers of near-and-far attention to sampled rows alone; causal ones with the block of rows that each is in. */
async function answersOf(backend: Backend, attention: Attention, inputs: Inputs, sizes: Sizes, rows: Float64Array) {
  const { heads, kvHeads, headDim, valueDim, keyRows } = sizes;
  const { causal } = attention;
  const shape = { heads, kvHeads, headDim, valueDim, causal, tileRows: TILE_ROWS };
  const began = performance.now();
  const { plan } = await fitNearFar(attention, shape, inputs, backend);
  const fitted = performance.now();
  await using session = await backend.prepareNearFar!(plan);
  const { q, k, v } = await memoryOf(inputs);
  const out: Tile = { start: 0, rows: rows.length, cols: valueDim, data: new Float64Array(rows.length * valueDim) };
  const emit = async (start: number, end: number) => {
    const { start: from, end: to } = nearRows(plan, start, end, keyRows);
    const beside = wantsNear(plan) ? { k: rowsOf(k, from, to), v: rowsOf(v, from, to) } : null;
    copySampled(await session.emit(rowsOf(q, start, end), beside), rows, out.data as Float64Array);
  };
  const absorb = async (start: number, end: number) => {
    for (let at = start; at < end; at += TILE_ROWS) {
      const to = Math.min(end, at + TILE_ROWS);
      await session.absorb(rowsOf(k, at, to), rowsOf(v, at, to));
    }
  };
  if (causal) {
    let at = 0;
    for (const block of new Set(Array.from(rows, (row) => Math.floor(row / BLOCK_ROWS) * BLOCK_ROWS))) {
      const end = Math.min(keyRows, block + BLOCK_ROWS);
      await absorb(at, block);
      await emit(block, end);
      await absorb(block, end);
      at = end;
    }
  } else {
    await absorb(0, keyRows);
    for (const row of rows) await emit(row, row + 1);
  }
  return { out, fitSeconds: (fitted - began) / 1000, seconds: (performance.now() - fitted) / 1000 };
}

const wantsNear = ({ window, causal }: NearFarPlan) => window > 0 || causal;

/** Answers of random features to sampled rows. */
async function featuresOf(backend: Backend, attention: Attention, inputs: Inputs, sizes: Sizes, rows: Float64Array) {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  const shape = { heads, kvHeads, headDim, valueDim, causal: attention.causal, tileRows: TILE_ROWS };
  using memory = new TileStore(backend, TILE_ROWS, backend.limits.inFlight + 1);
  const began = performance.now();
  const what = { backend, shape, inputs, memory, rows };
  const pass = { ...what, queries: await readSampled(what) };
  const { session } = await openSession(backend, attention, sizes, shape);
  await using _session = session;
  const answers = new Answers(pass, session);
  await passKeys(pass, [answers]);
  return { out: answers.outputs, fitSeconds: 0, seconds: (performance.now() - began) / 1000 };
}

/** Measures every setting on the first `rows` rows. */
async function measure(whole: Inputs, rows: number, options: Options): Promise<Measured[]> {
  const { backend, causal, clusters, check, others, name } = options;
  const inputs = sliceInputs(whole, { start: 0, end: rows });
  const sizes = sizesOf(inputs, causal);
  const sampled = sampleRows(rows, check, causal, 1);
  const truth = await truthOf({ inputs, sizes, backend, causal, scale: null }, sampled);
  const found: Measured[] = [];
  const settings: Partial<Attention>[] = clusters.map((count) => near(32, 0, "clusters", count));
  if (others) {
    const some = clusters.filter((count) => count === 64 || count === 256 || count === 1024);
    settings.push(...some.map((count) => near(32, 64, "clusters", count)));
    settings.push(...some.slice(0, 2).map((count) => near(256, 0, "clusters", count)));
    if (!causal) settings.push(...some.map((count) => near(32, 0, "clusters", count, 4)));
    settings.push(near(32, 0, "taylor1"), near(32, 64, "taylor1"), { features: "positive", nearFar: null });
  }
  for (const setting of settings) {
    const attention = { ...BASE, ...setting, causal };
    const count = attention.nearFar?.clusters ?? 0;
    if (count * 4 > rows) continue;
    const answer = attention.nearFar ? answersOf : featuresOf;
    const { out, fitSeconds, seconds } = await answer(backend, attention, inputs, sizes, sampled);
    const { relativeL2, uniformBaseline: uniform, skill } = compareOutputs(out, truth.exact, truth.uniform, 1, rows);
    const { window = 0, heavy = 0, top = 0 } = attention.nearFar ?? {};
    const line = { name, causal, rows, features: attention.features, window, heavy, clusters: count, top };
    found.push({ ...line, error: relativeL2.value, low: relativeL2.low, high: relativeL2.high, uniform, skill });
    const words = [rows, attention.features, count, `w ${window}`, `h ${heavy}`, `top ${top}`].join("  ");
    const figures = [relativeL2.value, relativeL2.low, relativeL2.high, uniform, skill].map((x) => x.toPrecision(3));
    console.log(`${words}  ${figures.join("  ")}  ${fitSeconds.toFixed(1)} s + ${seconds.toFixed(1)} s`);
  }
  return found;
}

interface Options {
  readonly backend: Backend;
  readonly name: string;
  readonly causal: boolean;
  readonly clusters: readonly number[];
  readonly check: number;
  readonly others: boolean;
}

const numbers = (text: string) => text.split(",").map(Number);

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    encode: { type: "string" },
    trained: { type: "string" },
    weights: { type: "string" },
    config: { type: "string" },
    layer: { type: "string", default: "0" },
    head: { type: "string", default: "0" },
    name: { type: "string" },
    causal: { type: "boolean", default: false },
    rows: { type: "string", default: "10000,30000,100000,300000,1000000" },
    clusters: { type: "string", default: "16,32,64,128,256,512,1024" },
    check: { type: "string", default: "192" },
    others: { type: "boolean", default: false },
    save: { type: "string" },
    backend: { type: "string", default: "wasm" },
    fit: { type: "boolean", default: false },
  },
});

if (flags.fit) {
  const found: Measured[] = [];
  for (const path of positionals) found.push(...JSON.parse(await readFile(path, "utf8")) as Measured[]);
  console.log(fitLaws(found));
} else {
  const [path] = positionals;
  if (path === undefined) throw new Error("Missing PATH: the file that rows are made of");
  const lengths = numbers(flags.rows);
  const { backend } = await openFirst(parseBackendList(flags.backend));
  await using _backend = backend;
  const { encode, trained, weights, config } = flags;
  const [layer, head] = [Number(flags.layer), Number(flags.head)];
  const wish: RowsWish = { path, encode, trained, weights, config, layer, head, rows: Math.max(...lengths) };
  const whole = await openRows(wish, backend);
  const name = flags.name ?? [encode ?? trained ?? `layer ${layer}`, `head ${head}`].join(" ");
  const { causal, others } = flags;
  const options = { backend, name, causal, clusters: numbers(flags.clusters), check: Number(flags.check), others };
  console.log(`# ${path} ${name}${causal ? " causal" : ""}: ${whole.k.info.rows} rows; ${backend.device}`);
  const found: Measured[] = [];
  for (const rows of lengths.filter((count) => count <= whole.k.info.rows)) {
    found.push(...await measure(whole, rows, options));
    if (flags.save) await writeFile(flags.save, JSON.stringify(found));
  }
  process.exitCode = found.length > 0 ? 0 : 1;
}
