/**
 * How fast a backend is on this machine: `auto` chooses between native products and our own by it. 25 ms each are timed, after a
 * warm-up without which just-in-time compilation hides the difference (first tried: onnx 21 and wasm 22 GFLOP/s in place of 129 and 51).
 *
 * The result is kept in a file, for this processor, runtime, version and number of threads.
 */
import * as os from "node:os";
import { dirname } from "node:path";
import type { Backend } from "../backend.ts";
import { UnsupportedError } from "../errors.ts";
import { makeFolder, openFile, openOutput } from "../bytes.ts";
import { bindMap, featureMap } from "../feature_map.ts";
import { drawProjection } from "../projection.ts";
import { RandomStream } from "../random.ts";
import { floats, type Tile } from "../tensor.ts";
import { VERSION } from "../version.ts";

const HEADS = 8;
const WIDTH = 64;
const FEATURES = 256;
/** Operations per row: queries and keys, features and sums. */
const FLOPS = 2 * HEADS * (2 * WIDTH * FEATURES + 2 * FEATURES * (WIDTH + 1));
const ROWS = 512;
/** Slow backends are timed on these. */
const FEW_ROWS = 64;
/** Runs of fast backends before the clock counts: just-in-time compilers need them, and the result is kept. */
const WARM_RUNS = 20;
const MOST_BYTES = 1 << 16;

/**
 * Floating-point operations per second of FAVOR+ (`positive`, 8 heads × 64, 256 features): the best of the runs that fit in `seconds`,
 * after some to warm up. A slow backend is timed once on few rows.
 */
export async function measureSpeed(backend: Backend, seconds = 0.025): Promise<number> {
  const draw = { kind: "orthogonal", projections: FEATURES, headDim: WIDTH, matrices: 1, seed: 0, draw: 0 };
  const weights = drawProjection({ ...draw, norms: "chi" });
  const parameters = bindMap(featureMap("positive"), { headDim: WIDTH, scale: WIDTH ** -0.5, matrices: 1, weights });
  const shape = { heads: HEADS, kvHeads: HEADS, headDim: WIDTH, valueDim: WIDTH, causal: false };
  const random = new RandomStream(0, 1);
  const data = Float32Array.from({ length: ROWS * HEADS * WIDTH }, () => random.uniform() - 0.5);
  const into = floats(backend.limits.precision, data.length);
  await using session = await backend.prepare({ ...shape, tileRows: ROWS, parameters });
  /** Operations per second of one run over `rows` rows. */
  const once = async (rows: number): Promise<number> => {
    const x: Tile = { start: 0, rows, cols: HEADS * WIDTH, data: data.subarray(0, rows * HEADS * WIDTH) };
    const start = performance.now();
    await session.absorb(x, x);
    await session.emit(x, null, into);
    return rows * FLOPS / ((performance.now() - start) / 1000);
  };
  await once(FEW_ROWS); // compiles, starts threads
  let best = await once(FEW_ROWS);
  if (FEW_ROWS * FLOPS / best > seconds / 2) return best;
  for (let run = 0; run < WARM_RUNS; run++) await once(ROWS);
  const end = performance.now() + 1000 * seconds;
  while (performance.now() < end) best = Math.max(best, await once(ROWS));
  return best;
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
    const kept = Object.entries((await this.#all())[this.#key] ?? {});
    return Object.fromEntries(kept.filter(([, speed]) => typeof speed === "number" && speed > 0));
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
  /** Why onnx was left for wasm; null when it was not. */
  readonly reason: string | null;
}

/** The faster of `onnx`, which is open, and `wasm`, which may open: by kept speeds, or by timing both. */
export async function fasterOf(
  onnx: Backend,
  openWasm: () => Promise<Backend>,
  cache: SpeedCache,
  measure: (backend: Backend) => Promise<number> = measureSpeed,
): Promise<Choice> {
  const kept = await cache.read();
  if (kept.onnx >= kept.wasm) return { backend: onnx, reason: null };
  let wasm: Backend;
  try {
    wasm = await openWasm();
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    return { backend: onnx, reason: null };
  }
  const speeds = kept.onnx < kept.wasm ? kept : { onnx: await measure(onnx) / 1e9, wasm: await measure(wasm) / 1e9 };
  if (speeds !== kept) await cache.write(speeds);
  const [backend, other] = speeds.onnx >= speeds.wasm ? [onnx, wasm] : [wasm, onnx];
  await other[Symbol.asyncDispose]();
  const figures = `${speeds.onnx.toFixed(0)} against ${speeds.wasm.toFixed(0)} GFLOP/s`;
  return { backend, reason: backend === onnx ? null : `slower than wasm on this machine, ${figures}` };
}
