/** Tensors of a session: files that are read, and temporary files that hold what lines made. Everything streams. */
import type { Workspace } from "./workspace.ts";
import type { Terminal } from "../commands/command.ts";
import { openInputs } from "../commands/attend_files.ts";
import { UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import { openSink } from "../formats/sink.ts";
import { floats, type Precision, type RowRange, type TensorInfo, type TensorSource, type Tile } from "../tensor.ts";
import type { TensorValue } from "./values.ts";

/** Numbers of a tile that expressions work on. */
const TILE_NUMBERS = 1 << 20;

/** A tensor that is open, and what closes it. */
export interface OpenTensor extends AsyncDisposable {
  readonly source: TensorSource;
  readonly info: TensorInfo;
  /** Axes of the value, with its rows. */
  readonly shape: readonly number[];
  readonly precision: Precision;
  readonly layout: "hld" | "lhd";
}

/** What a result looks like. */
export interface Form {
  readonly shape: readonly number[];
  readonly rows: number;
  readonly heads: number;
  readonly width: number;
  readonly precision: Precision;
  readonly layout?: "hld" | "lhd";
  readonly flags?: Readonly<Record<string, string>>;
}

/** Opens the rows of a tensor. */
export async function openTensor(value: TensorValue, terminal: Terminal): Promise<OpenTensor> {
  const { heads, layout = "hld", dtype, encode, seed = "0" } = value.flags;
  const view = { heads: heads === undefined ? undefined : Number(heads), layout: layout as "hld" | "lhd" };
  const rows = value.rows ? { start: value.rows.start, end: value.rows.end } : undefined;
  const files = new AsyncDisposableStack();
  try {
    let source: TensorSource;
    if (encode !== undefined) {
      const flags = { ...view, encode, rows, seed: Number(seed) };
      const opened = await openInputs({ line: [], arguments: [value.path], flags, sources: {} }, terminal);
      files.use(opened.files);
      source = opened.inputs.q;
    } else {
      const container = files.use(await openContainer(value.path, { dtype: dtype as "bf16" | undefined }));
      source = await container.open(value.member, { ...view, rows });
    }
    const precision = source.info.dtype === "f64" ? "f64" : "f32";
    const { info } = source;
    return {
      ...{ source, info, precision, layout: view.layout, shape: value.shape },
      [Symbol.asyncDispose]: () => files.disposeAsync(),
    };
  } catch (error) {
    await files.disposeAsync();
    throw error;
  }
}

/** Axes of a file's tensor when only some of its rows are taken. */
export function withRows(shape: readonly number[], rows: number, layout: "hld" | "lhd"): number[] {
  const axis = shape.length <= 2 ? 0 : layout === "lhd" ? shape.length - 3 : shape.length - 2;
  return shape.map((size, i) => i === axis ? rows : size);
}

/** How many rows a tensor has, from its axes. */
export function rowsIn({ shape, flags }: TensorValue): number {
  return shape.length <= 2 ? shape[0] : shape[shape.length - (flags.layout === "lhd" ? 3 : 2)];
}

/** Rows of a tile, so that it has about as many numbers as a tile should. */
export const tileRowsOf = (cols: number): number => Math.max(1, Math.floor(TILE_NUMBERS / Math.max(1, cols)));

/** Writes a tensor of tiles, which come in order and complete, to a temporary file of the session. */
export async function makeTensor(
  workspace: Workspace,
  { shape, rows, heads, width, precision, layout = "hld", flags = {} }: Form,
  tiles: AsyncIterable<Tile>,
): Promise<TensorValue> {
  const path = workspace.newPath(".npy");
  const { signal } = workspace; // that of this line, even when another one runs by then
  const dtype = precision;
  await using sink = await openSink(path, { dtype, shape, heads, width, layout });
  let done = 0;
  for await (const tile of tiles) {
    signal.throwIfAborted();
    await sink.write(tile);
    done += tile.rows;
    await breath();
  }
  if (done !== rows) throw new RangeError(`${done} rows of ${rows} were made`);
  await sink.finish();
  const kept = layout === "lhd" && shape.length > 2 ? { ...flags, layout } : flags;
  return { kind: "tensor", path, member: "", alone: true, flags: kept, rows: null, dtype, shape, report: null };
}

/** Lets keys and signals through. */
export const breath = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Tensors of the same rows and columns, tile by tile together. */
export async function* together(
  tensors: readonly OpenTensor[],
  precision: Precision,
  signal: AbortSignal,
): AsyncGenerator<readonly Tile[]> {
  const [{ info: { rows, heads, width } }] = tensors;
  const tileRows = tileRowsOf(heads * width);
  const streams = tensors.map(({ source }) => source.tiles(tileRows, { precision })[Symbol.asyncIterator]());
  try {
    for (let at = 0; at < rows; at += tileRows) {
      signal.throwIfAborted();
      const tiles: Tile[] = [];
      for (const stream of streams) tiles.push((await stream.next()).value);
      yield tiles;
      await breath();
    }
  } finally {
    for (const stream of streams) await stream.return?.();
  }
}

/** Another tensor of the same axes: element by element of one or two, or of one and a number. */
export async function mapTensors(
  workspace: Workspace,
  values: readonly TensorValue[],
  each: (...numbers: number[]) => number,
): Promise<TensorValue> {
  await using stack = new AsyncDisposableStack();
  const tensors: OpenTensor[] = [];
  for (const value of values) tensors.push(stack.use(await openTensor(value, workspace.terminal)));
  const [first, second] = tensors;
  if (second && !sameForm(first.info, second.info)) {
    throw new UsageError(
      `Cannot combine tensors of [${first.shape.join(", ")}] and [${
        second.shape.join(", ")
      }]: expected as many rows and columns`,
    );
  }
  const precision = tensors.some((tensor) => tensor.precision === "f64") ? "f64" : "f32";
  const { info: { rows, heads, width }, shape, layout } = first;
  async function* results(): AsyncGenerator<Tile> {
    for await (const [a, b] of together(tensors, precision, workspace.signal)) {
      const data = floats(precision, a.rows * a.cols);
      if (b) { for (let i = 0; i < data.length; i++) data[i] = each(a.data[i], b.data[i]); }
      else for (let i = 0; i < data.length; i++) data[i] = each(a.data[i]);
      yield { start: a.start, rows: a.rows, cols: a.cols, data };
    }
  }
  const form = { shape, rows, heads, width, precision, layout, flags: keptFlags(values[0]) } as const;
  return await makeTensor(workspace, form, results());
}

const sameForm = (a: TensorInfo, b: TensorInfo) => a.rows === b.rows && a.heads * a.width === b.heads * b.width;

/** Flags that still hold for a tensor made of another: how columns are split. */
function keptFlags({ flags, shape }: TensorValue): Record<string, string> {
  return flags.heads !== undefined && shape.length <= 2 ? { heads: flags.heads } : {};
}

/** One head, [L, d]. */
export async function headOf(workspace: Workspace, value: TensorValue, head: number): Promise<TensorValue> {
  const { info } = await peek(value, workspace);
  if (!Number.isInteger(head) || head < 0 || head >= info.heads) {
    const hint = info.heads === 1 && value.shape.length <= 2 ? "; load it with --heads H to split its columns" : "";
    throw new UsageError(`Cannot take head ${head}: there are ${info.heads}, expected 0 to ${info.heads - 1}${hint}`);
  }
  return await columns(workspace, value, { start: head * info.width, end: (head + 1) * info.width });
}

/** Columns of all heads together, [L, c]. */
export async function columns(workspace: Workspace, value: TensorValue, range: RowRange): Promise<TensorValue> {
  await using tensor = await openTensor(value, workspace.terminal);
  const { precision, info: { rows, heads, width }, source } = tensor;
  const [from, to] = [range.start, range.end];
  async function* results(): AsyncGenerator<Tile> {
    for await (const tile of source.tiles(tileRowsOf(heads * width), { precision })) {
      const data = floats(precision, tile.rows * (to - from));
      for (let i = 0; i < tile.rows; i++) {
        data.set(tile.data.subarray(i * tile.cols + from, i * tile.cols + to), i * (to - from));
      }
      yield { start: tile.start, rows: tile.rows, cols: to - from, data };
    }
  }
  return await makeTensor(
    workspace,
    { shape: [rows, to - from], rows, heads: 1, width: to - from, precision },
    results(),
  );
}

/** Rows of several tensors, one after the other. */
export async function concatenate(workspace: Workspace, values: readonly TensorValue[]): Promise<TensorValue> {
  await using stack = new AsyncDisposableStack();
  const tensors: OpenTensor[] = [];
  for (const value of values) tensors.push(stack.use(await openTensor(value, workspace.terminal)));
  const [{ info: { heads, width }, shape, layout }] = tensors;
  const odd = tensors.find(({ info }) => info.heads !== heads || info.width !== width);
  if (odd) {
    throw new UsageError(
      `Cannot put [${odd.shape.join(", ")}] after [${shape.join(", ")}]: expected the same heads and columns`,
    );
  }
  const precision = tensors.some((tensor) => tensor.precision === "f64") ? "f64" : "f32";
  const rows = tensors.reduce((sum, { info }) => sum + info.rows, 0);
  async function* results(): AsyncGenerator<Tile> {
    let start = 0;
    for (const { source, info } of tensors) {
      for await (const tile of source.tiles(tileRowsOf(heads * width), { precision })) {
        yield { ...tile, start: start + tile.start };
      }
      start += info.rows;
    }
  }
  const form: Form = {
    shape: withRows(shape, rows, layout),
    rows,
    heads,
    width,
    precision,
    layout,
    flags: keptFlags(values[0]),
  };
  return await makeTensor(workspace, form, results());
}

/** A file that holds the tensor alone, all of it: its own, or a copy. */
export async function aloneFile(workspace: Workspace, value: TensorValue): Promise<TensorValue> {
  if (value.alone && !value.rows && value.flags.encode === undefined) return value;
  const { report } = value;
  return { ...await mapTensors(workspace, [value], (number) => number), report };
}

/** Heads, rows and widths of a tensor. */
export async function peek(value: TensorValue, workspace: Pick<Workspace, "terminal">): Promise<OpenTensor> {
  const tensor = await openTensor(value, workspace.terminal);
  await tensor[Symbol.asyncDispose]();
  return tensor;
}
