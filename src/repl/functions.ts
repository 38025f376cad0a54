/** Functions of expressions: one row each. */
import { UsageError } from "../errors.ts";
import { RandomStream } from "../random.ts";
import type { Tile } from "../tensor.ts";
import { concatenate, makeTensor, mapTensors, type OpenTensor, openTensor, tileRowsOf, together } from "./tensors.ts";
import { numberOf, plainValue, tensorOf, type TensorValue, type Value } from "./values.ts";
import type { Workspace } from "./workspace.ts";

/** A function: how it is written, what it gives, and what it does. */
export interface SessionFunction {
  readonly usage: string;
  readonly summary: string;
  run(values: readonly Value[], workspace: Workspace): Promise<Value>;
}

/** The path of seeded tensors, which no projection has. */
const SESSION = 0x5e55;
/** Numbers of a tensor that is made at once. */
const MOST_NUMBERS = 2 ** 34;

/** Sums over a tensor. */
interface Sums {
  count: number;
  sum: number;
  squares: number;
  min: number;
  max: number;
  /** Numbers that are not finite. */
  odd: number;
}

/** Runs over all finite numbers of a tensor once. */
async function sumsOf(tensor: OpenTensor, signal: AbortSignal): Promise<Sums> {
  const sums: Sums = { count: 0, sum: 0, squares: 0, min: Infinity, max: -Infinity, odd: 0 };
  for await (const [{ data, rows, cols }] of together([tensor], "f64", signal)) {
    for (let i = 0; i < rows * cols; i++) {
      const x = data[i];
      if (!Number.isFinite(x)) {
        sums.odd++;
        continue;
      }
      sums.count++;
      sums.sum += x;
      sums.squares += x * x;
      if (x < sums.min) sums.min = x;
      if (x > sums.max) sums.max = x;
    }
  }
  return sums;
}

const measured = (summary: string, usage: string, of: (sums: Sums) => number): SessionFunction => ({
  usage,
  summary,
  async run(values, workspace) {
    const value = tensorOf(only(values, usage), "what is measured");
    await using tensor = await openTensor(value, workspace.terminal);
    return plainValue(of(await sumsOf(tensor, workspace.signal)));
  },
});

/** Of a number, or of every number of a tensor. */
const pointwise = (name: string, of: (x: number) => number): SessionFunction => ({
  usage: `${name}(x)`,
  summary: `${name} of a number, or of every number of a tensor`,
  async run(values, workspace) {
    const value = only(values, `${name}(x)`);
    if (value.kind === "tensor") return await mapTensors(workspace, [value], of);
    return plainValue(of(numberOf(value, `what ${name} is taken of`)));
  },
});

function only(values: readonly Value[], usage: string): Value {
  if (values.length !== 1) throw new UsageError(`Cannot use ${values.length} values here: write ${usage}`);
  return values[0];
}

/** Adding a function is a row here. */
export const FUNCTIONS: Readonly<Record<string, SessionFunction>> = {
  randn: {
    usage: "randn(L, D, seed)",
    summary: "a tensor [L, D] of seeded standard normal numbers; randn(H, L, d, seed) is [H, L, d]",
    run: randn,
  },
  concat: {
    usage: "concat(x, y, …)",
    summary: "the rows of tensors, one after the other",
    async run(values, workspace) {
      if (values.length < 2) throw new UsageError("Cannot put fewer than two tensors together: write concat(x, y)");
      return await concatenate(workspace, values.map((value) => tensorOf(value, "a part of concat")));
    },
  },
  stats: {
    usage: "stats(x)",
    summary: "shape, mean, standard deviation, range and mean squared norm of the rows of each head",
    run: stats,
  },
  error: {
    usage: "error(x, y)",
    summary: "relative L2 distance of x from y: ‖x − y‖ / ‖y‖",
    run: distance,
  },
  mean: measured("the mean of all numbers", "mean(x)", ({ sum, count }) => sum / count),
  std: measured("their standard deviation", "std(x)", deviationOf),
  min: measured("the least number", "min(x)", ({ min }) => min),
  max: measured("the largest number", "max(x)", ({ max }) => max),
  norm: measured("the root of the sum of squares", "norm(x)", ({ squares }) => Math.sqrt(squares)),
  sqrt: pointwise("sqrt", Math.sqrt),
  exp: pointwise("exp", Math.exp),
  log: pointwise("log", Math.log),
  abs: pointwise("abs", Math.abs),
};

function deviationOf({ count, sum, squares }: Sums): number {
  return Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
}

async function randn(values: readonly Value[], workspace: Workspace): Promise<TensorValue> {
  if (values.length < 2 || values.length > 4) {
    throw new UsageError("Cannot make a tensor of this: write randn(4096, 512), with a seed randn(4096, 512, 1)");
  }
  const numbers = values.map((value) => numberOf(value, "an axis or a seed"));
  // Three numbers are [L, D] and a seed; four are [H, L, d] and a seed.
  const axes = values.length === 4 ? numbers.slice(0, 3) : numbers.slice(0, 2);
  const seed = values.length > 2 ? numbers.at(-1)! : 0;
  const total = axes.reduce((product, size) => product * size, 1);
  if (!axes.every((size) => Number.isInteger(size) && size > 0) || total > MOST_NUMBERS) {
    throw new UsageError(
      `Cannot make a tensor of [${axes.join(", ")}]: expected whole numbers above 0, ${MOST_NUMBERS} in all`,
    );
  }
  if (!Number.isInteger(seed) || seed < 0) {
    throw new UsageError(`Cannot use seed ${seed}: expected a whole number of at least 0`);
  }
  const [heads, rows, width] = axes.length === 3 ? axes : [1, axes[0], axes[1]];
  const cols = heads * width;
  const random = new RandomStream(seed, SESSION);
  async function* tiles(): AsyncGenerator<Tile> {
    const tileRows = tileRowsOf(cols);
    for (let start = 0; start < rows; start += tileRows) {
      const count = Math.min(tileRows, rows - start);
      const data = new Float32Array(count * cols);
      for (let i = 0; i < data.length; i++) data[i] = random.normal();
      yield { start, rows: count, cols, data };
    }
  }
  return await makeTensor(workspace, { shape: axes, rows, heads, width, precision: "f32" }, tiles());
}

async function stats(values: readonly Value[], workspace: Workspace): Promise<Value> {
  const value = tensorOf(only(values, "stats(x)"), "what is measured");
  await using tensor = await openTensor(value, workspace.terminal);
  const { rows, heads, width } = tensor.info;
  const sums = await sumsOf(tensor, workspace.signal);
  return plainValue({
    shape: value.shape,
    rows,
    heads,
    width,
    mean: sums.sum / sums.count,
    std: deviationOf(sums),
    min: sums.min,
    max: sums.max,
    meanSquaredNorm: sums.squares / (rows * heads),
    notFinite: sums.odd,
  });
}

async function distance(values: readonly Value[], workspace: Workspace): Promise<Value> {
  if (values.length !== 2) throw new UsageError("Cannot compare this: write error(x, y), where y is the truth");
  const [approx, exact] = values.map((value) => tensorOf(value, "a side of error"));
  await using x = await openTensor(approx, workspace.terminal);
  await using y = await openTensor(exact, workspace.terminal);
  if (x.info.rows !== y.info.rows || x.info.heads * x.info.width !== y.info.heads * y.info.width) {
    throw new UsageError(
      `Cannot compare [${approx.shape.join(", ")}] with [${exact.shape.join(", ")}]: expected the same axes`,
    );
  }
  let [apart, size] = [0, 0];
  for await (const [a, b] of together([x, y], "f64", workspace.signal)) {
    for (let i = 0; i < a.rows * a.cols; i++) {
      apart += (a.data[i] - b.data[i]) ** 2;
      size += b.data[i] ** 2;
    }
  }
  return plainValue(Math.sqrt(apart / size));
}
