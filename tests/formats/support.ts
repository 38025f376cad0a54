/** Sources and folders that the tests of formats share. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ByteSource } from "../../src/bytes.ts";
import { openContainer } from "../../src/formats/mod.ts";
import type { TensorView } from "../../src/formats/view.ts";
import { type FloatArray, type Precision, type RowRange, type TensorSource } from "../../src/tensor.ts";

export const FIXTURES: string = join(import.meta.dirname, "..", "fixtures");

/** A file of tests/fixtures. */
export const fixture = (name: string): string => join(FIXTURES, name);

/** A new folder that goes away with `await using`. */
export function folder(): AsyncDisposable & { readonly path: string; file(name: string): string } {
  const path = mkdtempSync(join(tmpdir(), "performer-test-"));
  return {
    path,
    file: (name) => join(path, name),
    async [Symbol.asyncDispose]() {
      rmSync(path, { recursive: true, force: true });
    },
  };
}

/** Makes a new folder the one for temporary files; `left` lists what is in it. */
export function temporaryFolder(): AsyncDisposable & { left(): string[] } {
  const dir = folder();
  const before = process.env.TMPDIR;
  process.env.TMPDIR = dir.path;
  return {
    left: () => readdirSync(dir.path),
    async [Symbol.asyncDispose]() {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
      await dir[Symbol.asyncDispose]();
    },
  };
}

/** Counts the reads of a source. */
export function countingByteSource(source: ByteSource): ByteSource & { reads: number; bytes: number } {
  return {
    path: source.path,
    byteLength: source.byteLength,
    reads: 0,
    bytes: 0,
    read(into, at) {
      this.reads++;
      this.bytes += into.length;
      return source.read(into, at);
    },
    [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
  };
}

/** All rows of a source, tile by tile. */
export async function allRows(
  source: TensorSource,
  tileRows = 3,
  precision: Precision = "f64",
  range?: RowRange,
): Promise<number[]> {
  const values: number[] = [];
  for await (const tile of source.tiles(tileRows, { precision, range })) values.push(...tile.data);
  return values;
}

/** All rows of one tensor of a file, and its description. */
export async function readTensor(path: string, name?: string, view: TensorView = {}) {
  await using container = await openContainer(path, {});
  await using source = await container.open(name, view);
  return { info: source.info, values: await allRows(source) };
}

/** What a promise is rejected with; fails when it is not. */
export async function rejection(promise: Promise<unknown>): Promise<Error> {
  try {
    await promise;
  } catch (error) {
    return error as Error;
  }
  throw new Error("expected a rejection");
}

/** `[row][head][col]` of an array of `shape` in C order, by plain indexing. */
export function naiveRows(
  values: ArrayLike<number>,
  shape: number[],
  axes: { row: number; heads: number[]; col?: number },
): number[] {
  const steps = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const result: number[] = [];
  const heads = axes.heads.reduce((product, axis) => product * shape[axis], 1);
  for (let row = 0; row < shape[axes.row]; row++) {
    for (let h = 0; h < heads; h++) {
      for (let c = 0; c < (axes.col === undefined ? 1 : shape[axes.col]); c++) {
        let at = row * steps[axes.row] + (axes.col === undefined ? 0 : c * steps[axes.col]);
        for (let i = axes.heads.length - 1, rest = h; i >= 0; i--) {
          at += (rest % shape[axes.heads[i]]) * steps[axes.heads[i]];
          rest = Math.floor(rest / shape[axes.heads[i]]);
        }
        result.push(values[at]);
      }
    }
  }
  return result;
}

/** Rows as tiles for a sink. */
export function* tilesOf(data: FloatArray, rows: number, tileRows: number) {
  const cols = data.length / rows;
  for (let start = 0; start < rows; start += tileRows) {
    const count = Math.min(tileRows, rows - start);
    yield { start, rows: count, cols, data: data.slice(start * cols, (start + count) * cols) };
  }
}
