/** Laws of dense layers, on every backend: y = activation(x Wᵀ + b), and no row knows of the others. */
import { expect, test } from "bun:test";
import { ACTIVATION_FUNCTIONS } from "../../kernels/scalar/activations.ts";
import type { Backend } from "../../src/backend.ts";
import { type LinearPlan, outputWidth } from "../../src/plan.ts";
import { RandomStream } from "../../src/random.ts";
import { floats, type Precision, type Tile } from "../../src/tensor.ts";
import { geluTolerance, layerTolerance, UNIT_ROUNDOFF } from "../tolerance.ts";
import { describeBackends } from "./backends.ts";
import { reorder, rowsOf, shuffled } from "./harness.ts";

type Activation = LinearPlan["activation"];
const ACTIVATIONS: readonly Activation[] = ["none", "relu", "gelu", "gelu-glu"];

interface Sizes {
  readonly inputs: number;
  readonly outputs: number;
  readonly rows: number;
  readonly activation?: Activation;
  readonly bias?: boolean;
  readonly groups?: number;
  /** Inputs are uniform in ± this. */
  readonly reach?: number;
  readonly precision?: Precision;
}

interface Layer {
  readonly plan: LinearPlan;
  readonly x: Tile;
}

/** Seeded numbers; weights are N(0, 1/inputs). */
function makeLayer(
  { inputs, outputs, rows, activation = "none", bias = true, reach = 2, precision = "f32", groups }: Sizes,
): Layer {
  const random = new RandomStream(5, inputs, outputs);
  const numbers = (values: ArrayLike<number>, scale: number) => {
    const array = floats(precision, values.length);
    for (let i = 0; i < values.length; i++) array[i] = scale * values[i];
    return array;
  };
  const plan: LinearPlan = {
    inputs,
    outputs,
    weight: numbers(random.normals(outputs * inputs / (groups ?? 1)), inputs ** -0.5),
    groups,
    bias: bias ? numbers(random.normals(outputs), 0.5) : null,
    activation,
    tileRows: rows,
  };
  const data = Float32Array.from({ length: rows * inputs }, () => reach * (2 * random.uniform() - 1));
  return { plan, x: { start: 3, rows, cols: inputs, data } };
}

/** What is computed, and how far each number may be off. */
interface Reference {
  readonly out: Float64Array;
  readonly allowed: Float64Array;
}

/** Written out in float64. */
function reference({ plan, x }: Layer, precision: Precision): Reference {
  const { inputs, outputs, weight, bias, activation, groups = 1 } = plan;
  const width = outputWidth(plan);
  const terms = inputs / groups;
  const out = new Float64Array(x.rows * width);
  const allowed = new Float64Array(x.rows * width);
  const u = new Float64Array(outputs);
  const error = new Float64Array(outputs);
  const gelu = ACTIVATION_FUNCTIONS.gelu;
  for (let i = 0; i < x.rows; i++) {
    for (let o = 0; o < outputs; o++) {
      let sum = bias?.[o] ?? 0, squares = 0;
      const group = Math.floor(o / (outputs / groups));
      for (let l = 0; l < terms; l++) {
        const term = weight[o * terms + l] * x.data[i * inputs + group * terms + l];
        sum += term;
        squares += term * term;
      }
      u[o] = sum;
      const walk = Math.sqrt(squares);
      error[o] = layerTolerance({ precision, terms, sum, bias: bias?.[o] ?? 0, walk });
    }
    for (let o = 0; o < width; o++) {
      const at = i * width + o;
      const curved = geluTolerance(precision, u[o], error[o]);
      if (activation === "gelu-glu") {
        const [f, other] = [gelu(u[o]), u[width + o]];
        out[at] = f * other;
        const walked = Math.abs(f) * error[width + o] + curved * Math.abs(other) + curved * error[width + o];
        allowed[at] = walked + UNIT_ROUNDOFF[precision] * Math.abs(out[at]);
      } else {
        out[at] = activation === "gelu" ? gelu(u[o]) : activation === "relu" ? Math.max(u[o], 0) : u[o];
        allowed[at] = activation === "gelu" ? curved : error[o];
      }
    }
  }
  return { out, allowed };
}

const known = new Map<string, Reference>();

function expectLayer(actual: Tile, sizes: Sizes, layer: Layer, precision: Precision): void {
  const key = JSON.stringify([sizes, precision]);
  let wanted = known.get(key);
  if (!wanted) known.set(key, wanted = reference(layer, precision));
  const { out, allowed } = wanted;
  expect([actual.start, actual.rows, actual.cols]).toEqual([3, sizes.rows, outputWidth(layer.plan)]);
  expect(actual.data.length).toBe(out.length);
  let worst = { excess: 1, text: "" };
  for (let at = 0; at < out.length; at++) {
    const error = Math.abs(actual.data[at] - out[at]);
    if (error / allowed[at] <= worst.excess || error === 0) continue;
    const text = `at ${at}: ${actual.data[at]} for ${out[at]}, off by ${error}, allowed ${allowed[at]}`;
    worst = { excess: Number.isNaN(error) ? Infinity : error / allowed[at], text };
  }
  expect(worst.text).toBe("");
}

async function run(backend: Backend, { plan, x }: Layer): Promise<Tile> {
  await using linear = await backend.prepareLinear(plan);
  return await linear.run(x);
}

const SHAPES: readonly Sizes[] = [
  { inputs: 1, outputs: 1, rows: 1 },
  { inputs: 1, outputs: 1000, rows: 65, activation: "gelu" },
  { inputs: 7, outputs: 5, rows: 2, activation: "relu" },
  { inputs: 7, outputs: 17, rows: 300, bias: false },
  { inputs: 64, outputs: 16, rows: 64, activation: "gelu", bias: false },
  { inputs: 64, outputs: 640, rows: 63, activation: "relu" },
  { inputs: 200, outputs: 1000, rows: 2, activation: "gelu" },
  { inputs: 200, outputs: 17, rows: 300, activation: "gelu" },
  { inputs: 803, outputs: 5, rows: 65 },
  { inputs: 803, outputs: 640, rows: 1, bias: false },
  { inputs: 803, outputs: 1000, rows: 64, activation: "relu", bias: false },
];
const SMALL: readonly Sizes[] = [
  { inputs: 1, outputs: 1, rows: 1 },
  { inputs: 7, outputs: 5, rows: 2, activation: "relu" },
  { inputs: 64, outputs: 17, rows: 3, activation: "gelu", bias: false },
  { inputs: 35, outputs: 40, rows: 65, activation: "gelu" },
];
const GATED: readonly Sizes[] = [
  { inputs: 7, outputs: 2, rows: 3 },
  { inputs: 20, outputs: 34, rows: 5 },
  { inputs: 64, outputs: 160, rows: 65, bias: false },
  { inputs: 200, outputs: 1000, rows: 64 },
];

/** Panels of 64 outputs and blocks of 64 rows, whole and not; 8 × 64 is a head transform. */
const GROUPED: readonly Sizes[] = [
  { inputs: 6, outputs: 9, rows: 2, groups: 3, activation: "relu" },
  { inputs: 20, outputs: 20, rows: 5, groups: 4, bias: false },
  { inputs: 512, outputs: 512, rows: 130, groups: 8 },
  { inputs: 512, outputs: 512, rows: 1, groups: 8 },
  { inputs: 320, outputs: 512, rows: 70, groups: 2, activation: "gelu" },
  { inputs: 35, outputs: 700, rows: 65, groups: 7 },
  { inputs: 640, outputs: 480, rows: 3, groups: 5, activation: "relu", bias: false },
];

describeBackends("dense layer", (backend, slow) => {
  const { precision } = backend.limits;
  const near = async (sizes: Sizes) => {
    const layer = makeLayer(sizes);
    expectLayer(await run(backend, layer), sizes, layer, precision);
  };

  test("equals its definition, whatever the sizes", async () => {
    for (const sizes of slow ? SMALL : SHAPES) await near(sizes);
  });

  test("gated, halves of any width", async () => {
    for (const sizes of slow ? GATED.slice(0, 2) : GATED) await near({ ...sizes, activation: "gelu-glu" });
  });

  test("grouped: each group of outputs sees its own inputs alone", async () => {
    for (const sizes of slow ? GROUPED.slice(0, 2) : GROUPED) await near(sizes);
    // Whatever stands in the other groups' inputs, infinities but for backends that multiply by zeros: no bit changes.
    const { plan, x } = makeLayer({ inputs: 12, outputs: 21, rows: 3, groups: 3 });
    const rest = backend.name === "scalar" || backend.name === "wasm" ? Infinity : 1e6;
    const out = await run(backend, { plan, x });
    const changed = { ...x, data: x.data.map((value, at) => Math.floor(at % 12 / 4) === 1 ? value : rest) };
    const other = await run(backend, { plan, x: changed });
    for (let at = 0; at < out.data.length; at++) {
      if (Math.floor(at % 21 / 7) === 1) expect(other.data[at]).toBe(out.data[at]);
    }
  });

  test("every activation with and without bias, and of large inputs", async () => {
    const small = { inputs: 9, outputs: 22, rows: slow ? 2 : 6 };
    for (const activation of ACTIVATIONS) {
      for (const bias of [true, false]) await near({ ...small, activation, bias });
      await near({ ...small, activation, reach: 30 });
      await near({ ...small, activation, reach: 30, precision: "f64" });
    }
  });

  test("calls in flight are separate, tiles borrowed", async () => {
    const sizes: Sizes = { inputs: 33, outputs: 18, rows: slow ? 3 : 70, activation: "gelu" };
    const layer = makeLayer(sizes);
    await using linear = await backend.prepareLinear(layer.plan);
    const calls = Array.from({ length: 7 }, () => {
      const x = { ...layer.x, data: layer.x.data.slice() };
      const call = linear.run(x);
      x.data.fill(NaN);
      return call;
    });
    for (const out of await Promise.all(calls)) expectLayer(out, sizes, layer, precision);
    const short = await linear.run(rowsOf(layer.x, 1, 2));
    expect([short.start, short.rows, short.data.length]).toEqual([1, 1, 18]);
    const none = await linear.run(rowsOf(layer.x, 1, 1));
    expect([none.rows, none.data.length]).toEqual([0, 0]);
  });

  test("writes where it is told", async () => {
    const sizes: Sizes = { inputs: 33, outputs: 18, rows: 3, activation: "gelu-glu" };
    const layer = makeLayer(sizes);
    await using linear = await backend.prepareLinear(layer.plan);
    const into = floats(precision, 3 * 9 + 2).fill(7);
    const out = await linear.run(layer.x, into);
    expectLayer(out, sizes, layer, precision);
    expect(out.data.buffer === into.buffer).toBeTrue();
    expect(Array.from(into.subarray(27))).toEqual([7, 7]);
  });

  const exact = backend.name === "scalar" || backend.name === "wasm" ? test : test.skip; // others choose their own order
  exact("a row's numbers do not depend on its place or its tile", async () => {
    const { plan, x } = makeLayer({ inputs: 203, outputs: 145, rows: 131, activation: "gelu" });
    await using linear = await backend.prepareLinear(plan);
    const all = await linear.run(x);
    const order = shuffled(x.rows);
    const mixed = await linear.run(reorder(x, order));
    expect(mixed.data.every((value, at) => {
      return value === all.data[order[Math.floor(at / 145)] * 145 + at % 145];
    })).toBeTrue();
    for (const [from, to] of [[0, 1], [64, 65], [5, 70], [130, 131], [1, 131]]) {
      const some = await linear.run(rowsOf(x, from, to));
      expect(some.data.every((value, at) => value === all.data[from * 145 + at])).toBeTrue();
    }
  });

  const lends = backend.allocate ? test : test.skip; // elsewhere copies cannot be saved
  lends("lent memory is read and written in place", async () => {
    const sizes: Sizes = { inputs: 70, outputs: 37, rows: 130, activation: "gelu" };
    const layer = makeLayer(sizes);
    const x = backend.allocate!(layer.x.data.length);
    const into = backend.allocate!(130 * 37);
    x.set(layer.x.data);
    await using linear = await backend.prepareLinear(layer.plan);
    const out = await linear.run({ ...layer.x, data: x }, into);
    expectLayer(out, sizes, layer, precision);
    expect([out.data.byteOffset, out.data.buffer === into.buffer]).toEqual([into.byteOffset, true]);
    backend.release!(x);
    backend.release!(into);
  });

  test("numbers that do not fit the sizes are refused", async () => {
    const { plan, x } = makeLayer({ inputs: 4, outputs: 6, rows: 2 });
    const wrong: Partial<LinearPlan>[] = [
      { weight: plan.weight.subarray(1) },
      { bias: plan.bias!.subarray(1) },
      { outputs: 3, weight: plan.weight.subarray(12), bias: null, activation: "gelu-glu" },
      { groups: 2 },
      { groups: 3, weight: plan.weight.subarray(16) },
      { groups: 0 },
      { groups: 2, weight: plan.weight.subarray(12), activation: "gelu-glu" },
    ];
    for (const some of wrong) {
      await expect(backend.prepareLinear({ ...plan, ...some })).rejects.toBeInstanceOf(RangeError);
    }
    await using linear = await backend.prepareLinear(plan);
    const tall: Tile = { start: 0, rows: 3, cols: 4, data: new Float32Array(12) };
    await expect(linear.run(tall)).rejects.toBeInstanceOf(RangeError);
    await expect(linear.run({ ...x, cols: 2, rows: 1 })).rejects.toBeInstanceOf(RangeError);
  });
});
