/** Reading any layout: against a naive gather, and how many reads it costs. */
import { expect, test } from "bun:test";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import fc from "fast-check";
import { npyHeader } from "../../src/formats/npy.ts";
import { StridedTensor } from "../../src/formats/strided.ts";
import { rowView } from "../../src/formats/view.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { type DType, DTYPE_BYTES, type TensorInfo } from "../../src/tensor.ts";
import { gatherRows } from "./rows.ts";
import { allRows, countingByteSource, folder, naiveRows } from "./support.ts";

/** A tensor of f32 in memory, with its reads counted. */
function tensor(values: Float32Array, shape: number[], order: "C" | "F", layout: "hld" | "lhd", offset = 0) {
  const bytes = new Uint8Array(offset + values.byteLength);
  bytes.set(new Uint8Array(values.buffer), offset);
  return overBytes(bytes, shape, order, layout, "f32", offset);
}

function overBytes(
  bytes: Uint8Array,
  shape: number[],
  order: "C" | "F",
  layout: "hld" | "lhd",
  dtype: DType,
  offset = 0,
) {
  const counted = countingByteSource(memoryBytes(bytes));
  const { axes, rows, heads, width, firstRow } = rowView(shape, order, { layout }, "it");
  const info: TensorInfo = {
    path: "",
    name: "",
    dtype,
    shape,
    rows,
    heads,
    width,
    firstRow,
    byteLength: bytes.length - offset,
  };
  return { counted, source: new StridedTensor(info, { source: counted, offset, dtype, littleEndian: true }, axes) };
}

/** The C-order values as they stand in a Fortran-order file. */
function inFortranOrder(values: Float32Array, shape: number[]): Float32Array {
  const result = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) {
    let at = 0;
    let rest = i;
    const index = shape.map(() => 0);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      index[axis] = rest % shape[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    for (let axis = shape.length - 1; axis >= 0; axis--) at = at * shape[axis] + index[axis];
    result[at] = values[i];
  }
  return result;
}

test("any shape, order, layout, tile and range equals a naive gather", async () => {
  const sizes = fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 40 }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(sizes, { minLength: 1, maxLength: 4 }),
      fc.constantFrom("C" as const, "F" as const),
      fc.constantFrom("hld" as const, "lhd" as const),
      fc.integer({ min: 1, max: 12 }),
      fc.nat(),
      fc.nat(),
      fc.constantFrom("f32" as const, "f64" as const),
      async (shape, order, layout, tileRows, a, b, precision) => {
        fc.pre(shape.reduce((x, y) => x * y, 1) <= 20_000);
        const values = Float32Array.from({ length: shape.reduce((x, y) => x * y, 1) }, (_, i) => i);
        const { source } = tensor(order === "F" ? inFortranOrder(values, shape) : values, shape, order, layout, 3);
        const rank = shape.length;
        const axes: { row: number; heads: number[]; col?: number } = rank === 1
          ? { row: 0, heads: [] }
          : rank === 2
          ? { row: 0, heads: [], col: 1 }
          : { row: rank - (layout === "lhd" ? 3 : 2), heads: [rank - (layout === "lhd" ? 2 : 3)], col: rank - 1 };
        if (rank === 4) axes.heads.unshift(0);
        const naive = naiveRows(values, shape, axes);
        const rows = source.info.rows;
        const [start, end] = [a % (rows + 1), b % (rows + 1)].sort((x, y) => x - y);
        const cols = source.info.heads * source.info.width;
        expect(await allRows(source, tileRows, precision)).toEqual(naive);
        expect(await allRows(source, tileRows, precision, { start, end })).toEqual(
          naive.slice(start * cols, end * cols),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test("a tile of contiguous rows is exactly one read", async () => {
  for (const [shape, layout] of [[[1000, 64], "hld"], [[1000, 4, 16], "lhd"], [[1, 1000, 64], "hld"]] as const) {
    const { counted, source } = tensor(new Float32Array(64_000), [...shape], "C", layout);
    let tiles = 0;
    for await (const _ of source.tiles(300)) tiles++;
    expect(tiles).toBe(4);
    expect(counted.reads).toBe(4);
    expect(counted.bytes).toBe(256_000);
  }
  const halves = overBytes(new Uint8Array(128_000), [1000, 64], "C", "hld", "f16");
  for await (const _ of halves.source.tiles(500)) { /* counted */ }
  expect(halves.counted.reads).toBe(2);
});

test("heads first is one read per head and tile; Fortran order one read per column and tile", async () => {
  const heads = tensor(new Float32Array(4 * 5000 * 8), [4, 5000, 8], "C", "hld");
  for await (const _ of heads.source.tiles(2500)) { /* counted */ }
  expect(heads.counted.reads).toBe(8);
  expect(heads.counted.bytes).toBe(4 * 5000 * 8 * 4);
  const columns = tensor(new Float32Array(5000 * 8), [5000, 8], "F", "hld");
  for await (const _ of columns.source.tiles(2500)) { /* counted */ }
  expect(columns.counted.reads).toBe(16);
});

test("near neighbours are read together, whole tensors through bounded scratch", async () => {
  const rows = tensor(Float32Array.from({ length: 800 }, (_, i) => i), [100, 8], "F", "hld");
  const { data } = await gatherRows(rows.source, [7], "f32");
  expect([...data]).toEqual([7, 107, 207, 307, 407, 507, 607, 707]);
  expect(rows.counted.reads).toBe(1);

  const shape = [3, 70_000, 8]; // larger than the scratch memory, rows between heads
  const values = Float32Array.from({ length: 3 * 70_000 * 8 }, (_, i) => i);
  const large = tensor(inFortranOrder(values, shape), shape, "F", "hld");
  const all: number[] = [];
  for await (const tile of large.source.tiles(70_000)) for (const value of tile.data) all.push(value);
  let wrong = 0;
  for (let row = 0, i = 0; row < 70_000; row++) {
    for (let h = 0; h < 3; h++) for (let c = 0; c < 8; c++, i++) if (all[i] !== (h * 70_000 + row) * 8 + c) wrong++;
  }
  expect(wrong).toBe(0);
  expect(large.counted.bytes).toBe(values.byteLength);
});

test("the tile memory is reused and two readers do not share it", async () => {
  const { source } = tensor(Float32Array.from({ length: 12 }, (_, i) => i), [6, 2], "C", "hld");
  const [one, two] = [source.tiles(2)[Symbol.asyncIterator](), source.tiles(2)[Symbol.asyncIterator]()];
  const first = (await one.next()).value!;
  const other = (await two.next()).value!;
  const second = (await one.next()).value!;
  expect(second.data.buffer).toBe(first.data.buffer);
  expect([...other.data]).toEqual([0, 1, 2, 3]);
  expect([...second.data]).toEqual([4, 5, 6, 7]);
});

test("first and last rows of a file beyond 4 GiB", async () => {
  await using dir = folder();
  const path = dir.file("sparse.npy");
  const rows = 20_000_000;
  const head = npyHeader("f32", [rows, 64]);
  const fd = openSync(path, "w");
  ftruncateSync(fd, head.length + rows * 64 * DTYPE_BYTES.f32); // 5.1 GB, all holes
  writeSync(fd, head, 0, head.length, 0);
  for (const row of [0, rows - 1]) {
    const line = new Uint8Array(Float32Array.from({ length: 64 }, (_, i) => row + i).buffer);
    writeSync(fd, line, 0, line.length, head.length + row * 256);
  }
  closeSync(fd);
  await using container = await openContainer(path, {});
  await using source = await container.open();
  const { data } = await gatherRows(source, [0, rows - 1, rows - 2], "f64");
  expect([data[0], data[63], data[64], data[127], data[128]]).toEqual([
    0,
    63,
    Math.fround(rows - 1),
    Math.fround(rows + 62),
    0,
  ]);
  await using end = await container.open("", { heads: 8, rows: { start: rows - 1, end: rows } });
  expect((await allRows(end))[8]).toBe(Math.fround(rows + 7));
  expect(end.info.firstRow).toBe(rows - 1);
});
