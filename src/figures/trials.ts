/** Data of known law, and errors of attentions over it, as published tables and figures have them. */
import { type Attention } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { TAYLOR_MAPS } from "../feature_map.ts";
import { Inputs } from "../inputs.ts";
import { RandomStream } from "../random.ts";
import { attend } from "../run.ts";
import { floats, type TensorSource } from "../tensor.ts";

/** `rows × (heads·width)` numbers as a tensor, of one head unless it is said. */
export function inMemory(name: string, data: Float64Array, width: number, heads = 1): TensorSource {
  const cols = heads * width;
  const rows = data.length / cols;
  const info = { path: "memory", name, dtype: "f64", rows, heads, width, firstRow: 0 } as const;
  return {
    info: { ...info, shape: [rows, cols], byteLength: data.byteLength },
    async *tiles(tileRows, { range, precision = "f32" } = {}) {
      const end = range?.end ?? rows;
      for (let from = range?.start ?? 0; from < end; from += tileRows) {
        const count = Math.min(tileRows, end - from);
        const tile = floats(precision, count * cols);
        tile.set(data.subarray(from * cols, (from + count) * cols));
        yield { start: from, rows: count, cols, data: tile };
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Queries, keys and values of one head, row by row. */
export const inputsOf = (q: Float64Array, k: Float64Array, v: Float64Array, d: number, valueDim: number) =>
  new Inputs(inMemory("q", q, d), inMemory("k", k, d), inMemory("v", v, valueDim), null);

export interface DataSizes {
  readonly length: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly seed: number;
}

/** Queries and keys with independent N(0, sd²) entries, values N(0, 1). */
export function gaussianData({ length, headDim, valueDim, seed, sd }: DataSizes & { sd: number }): Inputs {
  const random = new RandomStream(seed, 0x7ab1e);
  const rows = () => random.normals(length * headDim).map((value) => sd * value);
  return inputsOf(rows(), rows(), random.normals(length * valueDim), headDim, valueDim);
}

export interface Trial {
  readonly features: string;
  readonly numFeatures: number;
  readonly projection: string;
  readonly seed: number;
  /** Whether keys are moved for random features; "off" where it is not said, as in most published tables. */
  readonly centre?: "on" | "off";
}

/** The attention of a trial, bidirectional. Far fields centre keys by definition. */
export function attentionOf({ features, numFeatures, projection, seed, centre = "off" }: Trial): Attention {
  const far = TAYLOR_MAPS.find((name) => name === features);
  return {
    features,
    nearFar: far ? { window: 0, heavy: 0, far, clusters: 0, top: 0 } : null,
    fitting: { params: null, centre: far ? "auto" : centre },
    numFeatures,
    projection,
    norms: "chi",
    seed,
    causal: false,
    scale: null,
    given: null,
    compat: "exact",
  };
}

/** Errors of attentions over data in memory, on the fastest backend. */
export class Trials implements AsyncDisposable {
  constructor(readonly backend: Backend) {}

  static async open(): Promise<Trials> {
    const { backend } = await openFirst(parseBackendList("auto"), { work: 0 }); // small problems: no onnxruntime
    return new Trials(backend);
  }

  /** Error against exact softmax on `check` sampled rows: relative L2, of the mean of V too, and mean square per output element; denominators ≤ 0. */
  async error(inputs: Inputs, trial: Trial, check: number) {
    const attention = attentionOf(trial);
    const options = { inputs, attention, backend: this.backend, refused: [], check, redraws: 0, sink: null };
    const { error, counts } = await attend({ ...options, encoding: null, peakBytes: () => 0 });
    if (!error) throw new Error(`No error was measured of ${trial.features}`);
    const { nonPositive } = counts;
    return {
      nonPositive,
      relativeL2: error.relativeL2.value,
      uniform: error.uniformBaseline,
      mse: Number(error.mse),
      phi: error.phi,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.backend[Symbol.asyncDispose]();
  }
}
