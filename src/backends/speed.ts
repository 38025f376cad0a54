/**
 * How fast a backend is on this machine, in 50 ms: `auto` chooses between native products and our own by it.
 *
 * The result is kept in a file, for this processor, runtime, version and number of threads.
 */
import * as os from "node:os";
import { dirname } from "node:path";
import type { Backend } from "../backend.ts";
import { makeFolder, openFile, openOutput } from "../bytes.ts";
import { bindMap, featureMap } from "../feature_map.ts";
import { drawProjection } from "../projection.ts";
import { RandomStream } from "../random.ts";
import type { Tile } from "../tensor.ts";
import { VERSION } from "../version.ts";

const HEADS = 8;
const WIDTH = 64;
const FEATURES = 256;
/** Operations per row: queries and keys, features and sums. */
const FLOPS = 2 * HEADS * (2 * WIDTH * FEATURES + 2 * FEATURES * (WIDTH + 1));
/** Slow backends are timed on few rows. */
const ROWS = [64, 512] as const;
/** Runs of fast backends before the clock counts: just-in-time compilers need them, and the result is kept. */
const WARM_RUNS = 20;
const MOST_BYTES = 1 << 16;

/**
 * Floating-point operations per second of FAVOR+ (`positive`, 8 heads × 64, 256 features): the best of what fits in `seconds` after some
 * runs to warm up. A slow backend takes as long as 64 rows take it.
 */
export async function measureSpeed(backend: Backend, seconds = 0.025): Promise<number> {
  const draw = { kind: "orthogonal", projections: FEATURES, headDim: WIDTH, matrices: 1, seed: 0, draw: 0 };
  const weights = drawProjection({ ...draw, norms: "chi" });
  const parameters = bindMap(featureMap("positive"), { headDim: WIDTH, scale: WIDTH ** -0.5, matrices: 1, weights });
  const shape = { heads: HEADS, kvHeads: HEADS, headDim: WIDTH, valueDim: WIDTH, causal: false };
  const random = new RandomStream(0, 1);
  const data = Float32Array.from({ length: ROWS[1] * HEADS * WIDTH }, () => random.uniform() - 0.5);
  await using session = await backend.prepare({ ...shape, tileRows: ROWS[1], parameters });
  let best = Infinity;
  for (const rows of ROWS) {
    const x: Tile = { start: 0, rows, cols: HEADS * WIDTH, data: data.subarray(0, rows * HEADS * WIDTH) };
    const into = backend.limits.precision === "f64" ? new Float64Array(x.data.length) : new Float32Array(x.data.length);
    const once = async (): Promise<number> => {
      const start = performance.now();
      await session.absorb(x, x);
      await session.emit(x, null, into);
      return (performance.now() - start) / 1000;
    };
    await once(); // compiles, starts threads
    if (rows === ROWS[1]) { for (let run = 0; run < WARM_RUNS; run++) await once(); }
    if (rows === ROWS[0]) {
      const second = await once();
      best = second / rows;
      if (second > seconds / 2) break;
      continue;
    }
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) best = Math.min(best, (await once()) / rows);
  }
  return FLOPS / best;
}

/** Speeds kept from earlier runs, in GFLOP/s by backend; a file that cannot be read or written is done without. */
export class SpeedCache {
  /** @param path the file; null keeps nothing */
  constructor(readonly path: string | null, readonly threads: number | undefined) {}

  /** What a speed depends on. */
  get #key(): string {
    const threads = this.threads ?? os.availableParallelism();
    return [VERSION, navigator.userAgent, os.arch(), os.cpus()[0]?.model ?? "unknown", `${threads} threads`].join(
      " · ",
    );
  }

  async read(): Promise<Record<string, number>> {
    return (await this.#all())[this.#key] ?? {};
  }

  async write(speeds: Record<string, number>): Promise<void> {
    if (this.path === null) return;
    try {
      const all = { ...await this.#all(), [this.#key]: speeds };
      await makeFolder(dirname(this.path));
      await using file = openOutput(this.path);
      await file.write(new TextEncoder().encode(JSON.stringify(all, null, 1) + "\n"), 0);
      await file.commit();
    } catch {
      return; // no home, no room, no right to write: measured again next time
    }
  }

  async #all(): Promise<Record<string, Record<string, number>>> {
    if (this.path === null) return {};
    try {
      await using file = await openFile(this.path);
      if (file.byteLength > MOST_BYTES) return {};
      const bytes = new Uint8Array(file.byteLength);
      await file.read(bytes, 0);
      const all = JSON.parse(new TextDecoder().decode(bytes));
      return typeof all === "object" && all !== null && !Array.isArray(all) ? all : {};
    } catch {
      return {};
    }
  }
}

/** What `fasterOf` decided. */
export interface Choice {
  readonly backend: Backend;
  /** Set when the first backend was left for the second. */
  readonly reason: string | null;
}

/** The faster of a backend that is open and another that may open: by kept speeds, or by timing both. */
export async function fasterOf(first: Backend, second: () => Promise<Backend>, cache: SpeedCache): Promise<Choice> {
  const known = await cache.read();
  let other: Backend | null = null;
  const names = { first: first.name, second: "wasm" };
  let speeds = { first: known[names.first], second: known[names.second] };
  if (!(speeds.first > 0 && speeds.second > 0)) {
    try {
      other = await second();
    } catch {
      return { backend: first, reason: null };
    }
    speeds = { first: await measureSpeed(first) / 1e9, second: await measureSpeed(other) / 1e9 };
    await cache.write({ ...known, [names.first]: speeds.first, [names.second]: speeds.second });
  }
  if (speeds.first >= speeds.second) {
    await other?.[Symbol.asyncDispose]();
    return { backend: first, reason: null };
  }
  const figures = `${speeds.first.toFixed(0)} against ${speeds.second.toFixed(0)} GFLOP/s`;
  other ??= await second();
  await first[Symbol.asyncDispose]();
  return { backend: other, reason: `slower than ${names.second} on this machine, ${figures}` };
}
