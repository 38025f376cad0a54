/** Runs of attention over numbers in memory, for the sake of their health per head. */
import type { Attention } from "../src/attention.ts";
import type { Backend } from "../src/backend.ts";
import { scalar } from "../src/backends/scalar.ts";
import { Inputs } from "../src/inputs.ts";
import { RandomStream } from "../src/random.ts";
import type { HealthReport } from "../src/report.ts";
import { attend } from "../src/run.ts";
import { floats, type TensorSource } from "../src/tensor.ts";

/** Plain positive features that read nothing ahead. */
export const ATTENTION: Attention = {
  features: "positive",
  numFeatures: 64,
  projection: "iid",
  norms: "chi",
  seed: 1,
  causal: false,
  scale: 1,
  given: null,
  compat: "exact",
  fitting: { params: null, centre: "off" },
};

/** A tensor in memory that delivers tiles as files do: in memory of the caller where there is some. */
function memory(data: Float64Array, heads: number, width: number): TensorSource {
  const cols = heads * width, all = data.length / cols;
  const info = { path: "memory", name: "", dtype: "f64", shape: [all, cols], rows: all, heads, width } as const;
  return {
    info: { ...info, firstRow: 0, byteLength: 8 * data.length },
    async *tiles(tileRows, { range = { start: 0, end: all }, precision = "f32", memory } = {}) {
      for (let start = range.start, turn = 0; start < range.end; start += tileRows, turn++) {
        const end = Math.min(range.end, start + tileRows);
        const length = (end - start) * cols;
        const tile = memory?.[turn % memory.length].subarray(0, length) ?? floats(precision, length);
        tile.set(data.subarray(start * cols, end * cols));
        yield { start, rows: end - start, cols, data: tile };
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}

export interface Given {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v?: Float64Array;
  readonly weights?: Float64Array;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly width: number;
  readonly sampled?: number[];
  readonly tileRows?: number;
}

/** Health of a run over numbers in memory. @param on a backend; the scalar one if left out. */
export async function healthOf(given: Given, changes: Partial<Attention> = {}, on?: Backend): Promise<HealthReport> {
  const { q, k, heads = 1, kvHeads = heads, width, weights, sampled, tileRows } = given;
  const v = given.v ?? Float64Array.from(new RandomStream(7).normals(k.length));
  const backend = on ?? await scalar.open({ named: true }); // which holds nothing to dispose of
  const report = await attend({
    inputs: new Inputs(
      memory(q, heads, width),
      memory(k, kvHeads, width),
      memory(v, kvHeads, width),
      weights ? memory(weights, 1, 1) : null,
    ),
    attention: { ...ATTENTION, ...changes },
    backend,
    refused: [],
    tileRows,
    check: 256,
    sampled: sampled && Float64Array.from(sampled),
    health: true,
    redraws: 0,
    sink: null,
    encoding: null,
    peakBytes: () => 0,
  });
  return report.health!;
}

export const normals = (seed: number, length: number, spread = 1) =>
  Float64Array.from(new RandomStream(seed).normals(length), (value) => spread * value);
