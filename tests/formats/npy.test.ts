/** .npy against what numpy says is in the fixtures. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { InputError, UsageError } from "../../src/errors.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { npy, npyHeader } from "../../src/formats/npy.ts";
import { allRows, fixture, FIXTURES, folder, naiveRows, readTensor, rejection } from "./support.ts";

interface Expected {
  name: string;
  dtype: string;
  shape: number[];
  order: string;
  values: number[];
}
const expected: Record<string, Expected[]> = JSON.parse(readFileSync(fixture("expected.json"), "utf8"));
const files = readdirSync(FIXTURES);

describe("numpy files", () => {
  const plain = files.filter((file) => file.endsWith(".npy") && file in expected);
  test.each(plain)("%s", async (file) => {
    const [{ dtype, shape, order, values }] = expected[file];
    await using container = await openContainer(fixture(file), {});
    expect(container.members).toHaveLength(1);
    expect(container.members[0]).toMatchObject({ name: "", dtype, shape, order });
    const all = await container.readAll(undefined, "f64");
    expect([...all.data]).toEqual(values);
    const single = await container.readAll();
    expect([...single.data]).toEqual([...Float32Array.from(values)]);
    if (shape.length !== 2) return;
    await using source = await container.open();
    expect(await allRows(source, 3)).toEqual(values);
    expect(source.info).toMatchObject({ rows: shape[0], heads: 1, width: shape[1], firstRow: 0, dtype });
  });

  test.each(["brain_void.npy", "brain_u16.npy"])("%s as bf16", async (file) => {
    await using container = await openContainer(fixture(file), { dtype: "bf16" });
    const { data } = await container.readAll(undefined, "f64");
    expect([...data]).toEqual(expected.bf16[0].values);
    const error = await rejection(openContainer(fixture("f32.npy"), { dtype: "bf16" }));
    expect(error).toBeInstanceOf(UsageError);
  });

  test.each([
    ["refused_object.npy", "Python objects"],
    ["refused_complex.npy", "complex"],
    ["refused_text.npy", "text"],
    ["refused_date.npy", "dates"],
    ["refused_record.npy", "records"],
    ["brain_void.npy", "V2"],
  ])("%s is refused by name", async (file, words) => {
    const error = await rejection(readTensor(fixture(file)));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(words);
    expect(error.message).toContain(file);
  });
});

describe("views", () => {
  const grid = expected["grid.npy"][0].values;

  test.each(["grid.npy", "grid_fortran.npy"])("%s as heads or rows first", async (file) => {
    const hld = await readTensor(fixture(file), undefined, {});
    expect(hld.info).toMatchObject({ rows: 4, heads: 2, width: 3 });
    expect(hld.values).toEqual(naiveRows(grid, [2, 4, 3], { row: 1, heads: [0], col: 2 }));
    const lhd = await readTensor(fixture(file), undefined, { layout: "lhd", heads: 4 });
    expect(lhd.info).toMatchObject({ rows: 2, heads: 4, width: 3 });
    expect(lhd.values).toEqual(grid);
  });

  test("four axes are batch × heads", async () => {
    const values = expected["grid4_fortran.npy"][0].values;
    const { info, values: rows } = await readTensor(fixture("grid4_fortran.npy"), undefined, { heads: 4 });
    expect(info).toMatchObject({ rows: 4, heads: 4, width: 3, dtype: "i16" });
    expect(rows).toEqual(naiveRows(values, [2, 2, 4, 3], { row: 2, heads: [0, 1], col: 3 }));
    expect((await readTensor(fixture("grid4_fortran.npy"), undefined, { heads: 2 })).info.heads).toBe(4);
  });

  test("columns split into heads, a line is one column", async () => {
    const split = await readTensor(fixture("one_row.npy"), undefined, { heads: 2 });
    expect(split.info).toMatchObject({ rows: 1, heads: 2, width: 2 });
    expect(split.values).toEqual([0, 1, 2, 3]);
    expect((await readTensor(fixture("line.npy"))).info).toMatchObject({ rows: 5, heads: 1, width: 1 });
    expect((await readTensor(fixture("no_rows.npy"))).values).toEqual([]);
  });

  test.each(["grid.npy", "grid_fortran.npy"])("%s: rows and ranges", async (file) => {
    const whole = naiveRows(grid, [2, 4, 3], { row: 1, heads: [0], col: 2 });
    await using container = await openContainer(fixture(file), {});
    await using source = await container.open("", { rows: { start: 1, end: 4 } });
    expect(source.info).toMatchObject({ rows: 3, firstRow: 1, byteLength: 3 * 6 * 4 });
    expect(await allRows(source, 2)).toEqual(whole.slice(6));
    expect(await allRows(source, 2, "f32", { start: 1, end: 2 })).toEqual(whole.slice(12, 18));
    const starts = [];
    for await (const tile of source.tiles(2, { range: { start: 1, end: 3 } })) {
      starts.push([tile.start, tile.rows, tile.cols]);
    }
    expect(starts).toEqual([[1, 2, 6]]);
    await expect(allRows(source, 2, "f32", { start: 0, end: 4 })).rejects.toThrow(RangeError);
  });

  test.each(
    [
      ["one_row.npy", { heads: 3 }, UsageError, "3 heads"],
      ["line.npy", { heads: 2 }, UsageError, "2 heads"],
      ["grid.npy", { heads: 4 }, UsageError, "has 2"],
      ["grid.npy", { rows: { start: 2, end: 5 } }, UsageError, "4 rows"],
      ["grid.npy", { rows: { start: 3, end: 2 } }, UsageError, "3:2"],
      ["scalar.npy", {}, InputError, "single number"],
    ] as const,
  )("%s with %o is refused", async (file, view, kind, words) => {
    const error = await rejection(readTensor(fixture(file), undefined, view));
    expect(error).toBeInstanceOf(kind);
    expect(error.message).toContain(words);
  });
});

describe("damaged files", () => {
  test("truncated data says the bytes wanted and present", async () => {
    await using dir = folder();
    const path = dir.file("short.npy");
    writeFileSync(path, readFileSync(fixture("f32.npy")));
    truncateSync(path, 128 + 40);
    const error = await rejection(readTensor(path));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(/truncated.* 48 bytes.* 40 /);
    writeFileSync(path, readFileSync(fixture("brain_void.npy")).subarray(0, 128 + 10));
    expect((await rejection(openContainer(path, { dtype: "bf16" }))).message).toContain("truncated");
  });

  const bytes = new Uint8Array(readFileSync(fixture("f32.npy")));
  test("every cut of a file is an InputError", async () => {
    for (let length = 0; length < bytes.length; length++) {
      const source = memoryBytes(bytes.slice(0, length), "cut.npy");
      const error = await rejection((async () => {
        const contents = await npy.open(source);
        await contents.tensors[0].locate();
      })());
      expect(error).toBeInstanceOf(InputError);
    }
  });

  test.each([
    ["version 9", (copy: Uint8Array) => copy[6] = 9],
    ["a header longer than the file", (copy: Uint8Array) => copy[9] = 0xff],
    ["no dictionary", (copy: Uint8Array) => copy[10] = 0x20],
    ["no type", (copy: Uint8Array) => copy[12] = 0x20],
  ])("%s is an InputError", async (_, damage) => {
    const copy = bytes.slice();
    damage(copy);
    const error = await rejection(npy.open(memoryBytes(copy, "bad.npy")));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain("bad.npy");
  });

  test.each([
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (9007199254740991, 9007199254740991), }",
    "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': 2, }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1.5,), }",
    "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (2,), }",
    "[]",
  ])("header %s is an InputError", async (text) => {
    const head = new Uint8Array(10 + text.length + 64);
    head.set(bytes.subarray(0, 8));
    head[8] = text.length;
    head.set(new TextEncoder().encode(text), 10);
    expect(await rejection(npy.open(memoryBytes(head, "bad.npy")))).toBeInstanceOf(InputError);
  });

  test("any single wrong byte is read or an InputError, never a crash", async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (at, value) => {
        const copy = bytes.slice();
        copy[at] = value;
        try {
          await npy.open(memoryBytes(copy, "fuzzed.npy"));
        } catch (error) {
          if (!(error instanceof InputError)) throw error;
        }
      }),
      { numRuns: 500 },
    );
  });
});

test("headers we write are the bytes numpy writes", () => {
  const numpy = new Uint8Array(readFileSync(fixture("f32.npy")));
  expect(npyHeader("f32", [4, 3])).toEqual(numpy.subarray(0, 128));
  const line = new Uint8Array(readFileSync(fixture("line.npy")));
  expect(npyHeader("f32", [5])).toEqual(line.subarray(0, 128));
});
