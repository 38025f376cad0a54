/**
 * Attention weights of a small slice, exact and approximated, and their difference. With the identity as values, row i of an attention's
 * output is row i of its weights: so every map, near keys and far fields too, shows what it really weighs.
 */
import { type Attention, isExact } from "../attention.ts";
import type { Backend } from "../backend.ts";
import type { Chart, HeatPanel } from "../charts/chart.ts";
import { EXACT } from "../feature_map.ts";
import { Inputs } from "../inputs.ts";
import { attend } from "../run.ts";
import { RandomStream } from "../random.ts";
import { settingName } from "../setting_words.ts";
import type { TensorSource } from "../tensor.ts";
import { count, figure } from "../words.ts";
import type { Figure } from "./figure.ts";
import { inMemory } from "./trials.ts";

/** Rows of queries and keys of one head, `rows × headDim`. */
export interface Slice {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly rows: number;
  readonly headDim: number;
  /** What the picture calls it. */
  readonly label: string;
  /** Row of the file that the first one is. */
  readonly firstRow: number;
}

/** Seeded rows in neighbouring groups, so that there is something to attend to: centres N(0, 1), spread N(0, 0.35²), all times `scale`. */
export function seededSlice(
  { rows, headDim, seed, scale }: { rows: number; headDim: number; seed: number; scale: number },
): Slice {
  const random = new RandomStream(seed, 0x4ea7);
  const groups = Math.max(1, Math.round(Math.sqrt(rows / 2)));
  const centres = random.normals(groups * headDim);
  const draw = () =>
    random.normals(rows * headDim).map((noise, at) => {
      const group = Math.min(groups - 1, Math.floor(Math.floor(at / headDim) * groups / rows));
      return scale * (centres[group * headDim + at % headDim] + 0.35 * noise);
    });
  return {
    q: draw(),
    k: draw(),
    rows,
    headDim,
    label: `seeded rows in ${groups} groups (seed ${seed}, scale ${scale})`,
    firstRow: 0,
  };
}

/** Rows `start` … of one head of a file's queries and keys. */
export async function sliceOfFile(
  inputs: Inputs,
  { start, rows, head }: { start: number; rows: number; head: number },
): Promise<Slice> {
  const { q, k } = inputs;
  const read = async (source: TensorSource, head: number): Promise<Float64Array> => {
    const { width, heads } = source.info;
    const data = new Float64Array(rows * width);
    for await (const tile of source.tiles(rows, { range: { start, end: start + rows }, precision: "f64" })) {
      for (let i = 0; i < tile.rows; i++) {
        const at = (i * heads + head) * width;
        data.set(tile.data.subarray(at, at + width), (tile.start - start + i) * width);
      }
    }
    return data;
  };
  const keyHead = Math.floor(head * k.info.heads / q.info.heads);
  const label = `${q.info.path}, head ${head}, rows ${count(start)} to ${count(start + rows - 1)}`;
  return {
    q: await read(q, head),
    k: await read(k, keyHead),
    rows,
    headDim: q.info.width,
    label,
    firstRow: q.info.firstRow + start,
  };
}

/** Weights `rows × rows` of an attention over a slice. */
export async function weightsOf(
  { q, k, rows, headDim }: Slice,
  attention: Attention,
  backend: Backend,
): Promise<Float64Array> {
  const identity = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) identity[i * rows + i] = 1;
  const inputs = new Inputs(inMemory("q", q, headDim), inMemory("k", k, headDim), inMemory("v", identity, rows), null);
  const weights = new Float64Array(rows * rows);
  const sink = {
    path: "memory",
    dtype: "f64",
    shape: [rows, rows],
    write: async (tile: { start: number; data: ArrayLike<number> }) => weights.set(tile.data, tile.start * rows),
    finish: async () => {},
    async [Symbol.asyncDispose]() {},
  };
  const options = {
    inputs,
    attention,
    backend,
    refused: [],
    check: 0,
    redraws: 0,
    sink,
    encoding: null,
    peakBytes: () => 0,
  };
  await attend(options);
  return weights;
}

export interface HeatmapOptions {
  readonly backend: Backend;
  readonly slice: Slice;
  readonly attention: Attention;
}

/** Computes both matrices. */
export async function heatmapFigure({ backend, slice, attention }: HeatmapOptions): Promise<Figure> {
  const { rows, firstRow } = slice;
  const exact = await weightsOf(slice, { ...attention, features: EXACT, nearFar: null }, backend);
  const approximate = isExact(attention) ? exact : await weightsOf(slice, attention, backend);
  const difference = approximate.map((weight, i) => weight - exact[i]);
  const visible = (i: number) => !attention.causal || i % rows <= Math.floor(i / rows);
  const distances = Array.from({ length: rows }, (_, i) => {
    return difference.subarray(i * rows, (i + 1) * rows).reduce((sum, value) => sum + Math.abs(value), 0) / 2;
  });
  const total = distances.reduce((sum, value) => sum + value, 0) / rows;
  const largest = difference.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const negative = approximate.filter((weight) => weight < 0).length;
  const name = settingName(attention);
  const places = Array.from({ length: rows }, (_, i) => firstRow + i);
  const top = Math.max(...exact, Number.MIN_VALUE);
  const matrix = (title: string, weights: Float64Array, colour: HeatPanel["colour"]): HeatPanel => ({
    kind: "heat",
    title,
    columns: { title: "key row", values: places },
    rows: { title: "query row", values: places },
    cells: Array.from(weights, (weight, i) => visible(i) ? weight : NaN),
    colour,
  });
  const weight = { title: "weight (rows sum to 1)", scale: "linear", kind: "sequential", domain: [0, top] } as const;
  const findings = [
    `A row of weights moves ${figure(100 * total)} % of its mass to other keys in the mean, ${
      figure(100 * Math.max(...distances))
    } % at most ` +
    "(total variation distance)",
    ...(negative > 0
      ? [
        `${count(negative)} of ${
          count(approximate.length)
        } approximate weights are negative, drawn as 0: ${attention.features} features are signed`,
      ]
      : []),
    ...(approximate.some((value) => value > top)
      ? [
        `Approximate weights go up to ${figure(Math.max(...approximate))}, drawn as the largest exact one, ${
          figure(top)
        }`,
      ]
      : []),
  ];
  const chart: Chart = {
    title: `Attention weights, exact and approximated: ${name}`,
    caption: [
      `${slice.label}; ${attention.causal ? "causal: grey keys are not visible" : "bidirectional"}`,
      ...findings,
    ],
    panels: [
      matrix("Exact softmax", exact, weight),
      matrix("Approximate", approximate, weight),
      matrix("Approximate − exact", difference, {
        title: "difference of weights",
        scale: "linear",
        kind: "diverging",
        middle: 0,
        domain: [-(largest || 1), largest || 1],
      }),
    ],
  };
  return {
    name: "heatmap",
    title: chart.title,
    settings: {
      input: slice.label,
      rows,
      headDim: slice.headDim,
      firstRow,
      features: attention.features,
      numFeatures: attention.numFeatures,
      projection: attention.projection,
      seed: attention.seed,
      causal: attention.causal,
    },
    findings,
    data: {
      weights: places.flatMap((query, i) =>
        places.flatMap((key, j) => {
          const at = i * rows + j;
          return visible(at) ? [{ query, key, exact: exact[at], approximate: approximate[at] }] : [];
        })
      ),
    },
    chart,
  };
}
