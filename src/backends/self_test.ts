/** Runs one small golden case on every backend: attention whose answer is known from a dense float64 evaluation. */
import type { Backend } from "../backend.ts";
import { bindMap, featureMap } from "../feature_map.ts";
import { drawProjection } from "../projection.ts";
import { RandomStream } from "../random.ts";
import type { Tile } from "../tensor.ts";
import { CANDIDATES, openFirst, type OpenSettings, parseBackendList } from "./mod.ts";
import { measureSpeed } from "./speed.ts";

export interface SelfTest {
  readonly name: string;
  readonly status: "PASS" | "FAIL" | "refused";
  /** Device and error, or the reason. */
  readonly detail: string;
  readonly relativeL2: number | null;
  /** FAVOR+ by the short timing that `auto` goes by (speed.ts). */
  readonly gflopsPerSecond: number | null;
}

const ROWS = 96;
const HEADS = 2;
const WIDTH = 16;
const FEATURES = 64;
const LIMIT = 1e-5;

/** Opens every backend by name, tests and times it, and tells of it (`tested`); also says which one `auto` takes. */
export async function testBackends(
  settings: OpenSettings = {},
  tested?: (result: SelfTest) => void,
): Promise<{ auto: string; results: SelfTest[] }> {
  const results: SelfTest[] = [];
  for (const { name } of CANDIDATES) {
    const result = await testOne(name, settings);
    tested?.(result);
    results.push(result);
  }
  const { backend } = await openFirst(parseBackendList("auto"), settings);
  await using _ = backend;
  return { auto: `${backend.name} · ${backend.device}`, results };
}

async function testOne(name: string, settings: OpenSettings): Promise<SelfTest> {
  let backend: Backend;
  try {
    ({ backend } = await openFirst(parseBackendList(name), settings));
  } catch (error) {
    return {
      name,
      status: "refused",
      detail: (error as { reason?: string }).reason ?? String(error),
      relativeL2: null,
      gflopsPerSecond: null,
    };
  }
  await using _ = backend;
  try {
    const relativeL2 = await goldenError(backend);
    const gflopsPerSecond = await measureSpeed(backend) / 1e9;
    const status = relativeL2 <= LIMIT ? "PASS" : "FAIL";
    const figures = `relative L2 ${relativeL2.toExponential(1)} · ${
      gflopsPerSecond.toFixed(gflopsPerSecond < 10 ? 1 : 0)
    } GFLOP/s`;
    return { name, status, detail: `${backend.device} · ${figures}`, relativeL2, gflopsPerSecond };
  } catch (error) {
    const detail = `${backend.device} · ${(error as Error).message}`;
    return { name, status: "FAIL", detail, relativeL2: null, gflopsPerSecond: null };
  }
}

/** Largest relative L2 distance, over both directions, from a dense evaluation of the same features in float64. */
export async function goldenError(backend: Backend): Promise<number> {
  const random = new RandomStream(20200930);
  const tile = (): Tile => {
    const data = Float32Array.from(random.normals(ROWS * HEADS * WIDTH), (value) => 0.7 * value);
    return { start: 0, rows: ROWS, cols: HEADS * WIDTH, data };
  };
  const [q, k, v] = [tile(), tile(), tile()];
  const weights = drawProjection({
    kind: "orthogonal",
    projections: FEATURES / 2,
    headDim: WIDTH,
    matrices: HEADS,
    norms: "chi",
    seed: 1,
    draw: 0,
  });
  const parameters = bindMap(featureMap("hyperbolic"), {
    headDim: WIDTH,
    scale: WIDTH ** -0.5,
    matrices: HEADS,
    weights,
  });
  const shape = { heads: HEADS, kvHeads: HEADS, headDim: WIDTH, valueDim: WIDTH, tileRows: ROWS };
  let worst = 0;
  for (const causal of [false, true]) {
    await using session = await backend.prepare({ ...shape, causal, parameters });
    if (!causal) await session.absorb(k, v);
    const out = await session.emit(q, causal ? { k, v } : undefined);
    worst = Math.max(worst, distance(out.data, dense(q, k, v, weights, causal)));
  }
  return worst;
}

/** Σ_j cosh(w·(x_i + y_j)) e^{−‖y_j‖²/2} v_j, normalised, written out without any state. */
function dense(q: Tile, k: Tile, v: Tile, weights: Float64Array, causal: boolean): Float64Array {
  const out = new Float64Array(q.data.length);
  const half = FEATURES / 2;
  const scale = WIDTH ** -0.25;
  const project = (tile: Tile, i: number, h: number) => {
    const u = new Float64Array(half);
    let squares = 0;
    for (let c = 0; c < WIDTH; c++) {
      const x = tile.data[(i * HEADS + h) * WIDTH + c] * scale;
      squares += x * x;
      for (let a = 0; a < half; a++) u[a] += weights[(h * half + a) * WIDTH + c] * x;
    }
    return { u, norm: squares / 2 };
  };
  for (let h = 0; h < HEADS; h++) {
    const keys = Array.from({ length: ROWS }, (_, j) => project(k, j, h));
    for (let i = 0; i < ROWS; i++) {
      const { u } = project(q, i, h);
      let total = 0;
      const at = (i * HEADS + h) * WIDTH;
      for (let j = 0; j < (causal ? i + 1 : ROWS); j++) {
        let kernel = 0;
        for (let a = 0; a < half; a++) kernel += Math.cosh(u[a] + keys[j].u[a]);
        kernel *= Math.exp(-keys[j].norm);
        total += kernel;
        for (let c = 0; c < WIDTH; c++) out[at + c] += kernel * v.data[(j * HEADS + h) * WIDTH + c];
      }
      for (let c = 0; c < WIDTH; c++) out[at + c] /= total;
    }
  }
  return out;
}

function distance(a: ArrayLike<number>, b: Float64Array): number {
  let error = 0, norm = 0;
  for (let i = 0; i < b.length; i++) {
    error += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(error / norm);
}
