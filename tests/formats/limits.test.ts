/** What a small file may cost: hostile files that were slow, large or misread once, each with the bound that holds now. */
import { describe, expect, test } from "bun:test";
import { crc32, deflateRawSync } from "node:zlib";
import { InputError } from "../../src/errors.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openSource } from "../../src/formats/mod.ts";
import { npyHeader } from "../../src/formats/npy.ts";
import type { SpoolFile } from "../../src/bytes.ts";
import { StridedTensor } from "../../src/formats/strided.ts";
import { rowView } from "../../src/formats/view.ts";
import { spoolBeside } from "../../src/formats/zip.ts";
import { safetensors } from "./fuzz/mutate.ts";
import { stopwatch } from "./fuzz/random.ts";
import { allRows, countingByteSource, rejection } from "./support.ts";
import { dict, joined, number, tensor, torchZip, zipOf } from "./torch_made.ts";

const eight = new Uint8Array(new Float32Array([1.5, -2]).buffer);
const opened = (bytes: Uint8Array) => openSource(memoryBytes(bytes, "x.bin"));

async function refusal(bytes: Uint8Array): Promise<string> {
  const error = await rejection(opened(bytes));
  expect(error).toBeInstanceOf(InputError);
  return error.message;
}

describe("zip", () => {
  const data = joined(npyHeader("f32", [2]), eight);

  test.each([0, 1, 100])("members that share bytes are refused (%d)", async (at) => {
    expect(await refusal(zipOf([{ name: "q.npy", data }, { name: "k.npy", data, at }]))).toContain("shares bytes");
  });

  test("members side by side are not", async () => {
    await using container = await opened(zipOf([{ name: "q.npy", data }, { name: "k.npy", data }]));
    expect([...(await container.readAll("q")).data]).toEqual([1.5, -2]);
  });

  test("unpacked members share one budget of memory", async () => {
    const spools: SpoolFile[] = [];
    for (let i = 0; i < 6; i++) await spoolBeside(spools, "x.npz", 4000).append(new Uint8Array(900));
    expect(spools.map(({ onDisk }) => onDisk)).toEqual([false, false, false, false, true, true]);
    await spoolBeside(spools, "x.npz", 4000).append(new Uint8Array(100));
    expect(spools.at(-1)!.onDisk).toBe(false);
    for (const spool of spools) await spool[Symbol.asyncDispose]();
  });

  test("a deflated member that lies about its size is refused when it is read", async () => {
    const bytes = joined(npyHeader("f32", [2]), eight, new Uint8Array(1e6));
    const bomb = {
      name: "q.npy",
      data: new Uint8Array(deflateRawSync(bytes)),
      deflated: crc32(bytes),
      size: data.length,
    };
    await using container = await opened(zipOf([bomb]));
    const error = await rejection(container.readAll("q"));
    expect([error instanceof InputError, error.message]).toEqual([true, expect.stringContaining("more than the")]);
  });
});

describe("safetensors", () => {
  const tensorOf = (entry: object) =>
    safetensors(JSON.stringify({ w: { dtype: "F32", shape: [2], data_offsets: [0, 8], ...entry } }), eight);

  test.each<[string, unknown]>([["a text", "x".repeat(50)], ["a list", ["x"]], ["numbers", { a: 1 }], ["depth", {
    a: [[[]]],
  }]])(
    "metadata of %s is refused",
    async (_, metadata) => {
      expect(await refusal(safetensors(JSON.stringify({ __metadata__: metadata }), new Uint8Array(0)))).toContain(
        "__metadata__",
      );
    },
  );

  test.each(["toString", "__proto__", "constructor"])("%s is no element type", async (dtype) => {
    await using container = await opened(tensorOf({ dtype }));
    expect((await rejection(container.readAll("w"))).message).toContain(`dtype is ${dtype}`);
  });

  test("more axes than any array has", async () => {
    expect(await refusal(tensorOf({ shape: [2, ...new Array(64).fill(1)] }))).toContain("65 axes, expected at most 64");
    const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${"1, ".repeat(65)}), }`;
    const bytes = joined("\x93NUMPY\x01\x00", [text.length & 255, text.length >> 8], text, eight);
    expect(await refusal(bytes)).toContain("65 axes, expected at most 64");
  });
});

describe("checkpoints", () => {
  test("a long dict beside the model, named a thousand times, is gone through once", async () => {
    const long = `}(${Array.from({ length: 100_000 }, (_, i) => `${number(i)}N`).join("")}uq\x00`;
    const names = Object.fromEntries(Array.from({ length: 990 }, (_, i) => [`b${i}`, "h\x00"]));
    const bytes = torchZip(dict({ w: tensor(), a: long, ...names }), eight);
    const passed = stopwatch();
    await using container = await opened(bytes);
    expect(container.members.map(({ name }) => name)).toEqual(["w"]);
    expect(passed()).toBeLessThan(2000);
  });

  test("elements repeated or overlapping beyond measure", async () => {
    const w = (count: number, shape: number[], strides: number[]) =>
      torchZip(dict({ w: tensor({ count, shape, strides }) }), new Uint8Array(4 * count));
    expect(await refusal(w(70_000, [2 ** 20, 1000], [0, 1]))).toContain("repeats 70000 stored elements too often");
    expect(await refusal(w(3000, [2000, 1000], [1, 1]))).toContain("repeats");
    await using expanded = await opened(w(2, [3, 2], [0, 1]));
    expect((await expanded.readAll("w")).data.length).toBe(6);
    await using overlapping = await opened(w(4, [3, 2], [1, 1]));
    expect((await overlapping.readAll("w")).data.length).toBe(6);
  });
});

test("a view whose elements overlap is read in few reads, however its axes stand", async () => {
  const values = Float32Array.from({ length: 40_000 }, (_, i) => i);
  const counted = countingByteSource(memoryBytes(new Uint8Array(values.buffer)));
  const shape = [8, 8, 8, 8];
  const steps = [1999, 1999, 1401, 1];
  const { axes, rows, heads, width } = rowView(shape, steps, {}, "x");
  const info = { path: "x", name: "", dtype: "f32" as const, shape, rows, heads, width, firstRow: 0, byteLength: 0 };
  const source = new StridedTensor(info, { source: counted, offset: 0, dtype: "f32", littleEndian: true }, axes);
  const wanted = [];
  for (let row = 0; row < 8; row++) {
    for (let a = 0; a < 8; a++) {
      for (let b = 0; b < 8; b++) for (let c = 0; c < 8; c++) wanted.push(1999 * a + 1999 * b + 1401 * row + c);
    }
  }
  expect(await allRows(source, 8)).toEqual(wanted);
  expect(counted.reads).toBe(1);
});
