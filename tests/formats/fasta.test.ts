/** Residues of FASTA and text, plain and gzip. */
import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { InputError } from "../../src/errors.ts";
import { openResidues } from "../../src/formats/fasta.ts";
import { describeFile } from "../../src/formats/mod.ts";
import { fixture, folder, rejection } from "./support.ts";

/** Letters and records of a file. */
async function residues(path: string) {
  await using found = await openResidues(path);
  const letters = new Uint8Array(found.length);
  await found.read(letters, 0);
  return { letters: new TextDecoder().decode(letters), records: found.records, format: found.format };
}

/** The same of a text. */
async function residuesOf(text: string | Uint8Array) {
  await using dir = folder();
  writeFileSync(dir.file("x"), text);
  return await residues(dir.file("x"));
}

test.each(["reads.fa", "reads.fa.gz"])("%s: records, comments, CRLF, several gzip members", async (file) => {
  const { letters, records, format } = await residues(fixture(file));
  expect(format).toBe("fasta");
  expect(letters).toBe("ACGTACGTNNNGGTTTT");
  expect(records).toEqual([
    { name: "one", start: 0, length: 8 },
    { name: "two", start: 8, length: 5 },
    { name: "three", start: 13, length: 0 },
    { name: "four", start: 13, length: 4 },
  ]);
});

test("plain text is its letters; inspect counts FASTA records", async () => {
  expect(await residues(fixture("plain.txt"))).toEqual({
    letters: "ACGTACGTNNN",
    records: [{ name: "", start: 0, length: 11 }],
    format: "text",
  });
  const { format, records } = await describeFile(fixture("reads.fa.gz"));
  expect(format).toBe("fasta");
  expect(records?.map((record) => record.length)).toEqual([8, 5, 0, 4]);
});

test("comments before the first record, old line ends, a header without an end", async () => {
  expect((await residuesOf(";old style\n>a\nAC\n")).records).toEqual([{ name: "a", start: 0, length: 2 }]);
  expect((await residuesOf(">a\rAC\rGT\r>b\rT")).records.map((record) => record.length)).toEqual([4, 1]);
  expect((await residuesOf(">a\nAC\n>b")).records).toEqual([{ name: "a", start: 0, length: 2 }, {
    name: "b",
    start: 2,
    length: 0,
  }]);
});

test.each([
  ["nothing", ""],
  ["a header only", ">a\n"],
  ["white space only", " \n\t\n"],
  ["binary", Uint8Array.of(0x7f, 0x45, 0x4c, 0x46, 1, 0, 0, 0)],
  ["an empty gzip", gzipSync("")],
  ["a cut gzip", gzipSync(">a\n" + "ACGT".repeat(999)).subarray(0, 30)],
  ["a damaged gzip", gzipSync(">a\nACGT").map((byte, i) => i === 20 ? byte ^ 0xff : byte)],
  ["binary in a gzip", gzipSync(Uint8Array.of(0, 1, 2))],
])("%s is an InputError", async (_, bytes) => {
  expect(await rejection(residuesOf(bytes))).toBeInstanceOf(InputError);
});

test("more residues than memory is given for: bgzip blocks to a temporary file", async () => {
  await using dir = folder();
  const line = "acgtACGTnnACGTTGCAcgtacgtaacgttgcaacgtacgtaacgtacgtacgtacgtagc\n";
  const block = gzipSync(line.repeat(1000));
  const blocks = 300;
  writeFileSync(
    dir.file("big.fa.gz"),
    Buffer.concat([gzipSync(">chr1 >x\n"), ...Array<Buffer>(blocks).fill(block), gzipSync("")]),
  );
  await using found = await openResidues(dir.file("big.fa.gz"));
  const letters = line.trim().toUpperCase();
  expect(found.length).toBe(letters.length * 1000 * blocks);
  expect(found.records).toEqual([{ name: "chr1", start: 0, length: found.length }]);
  const piece = new Uint8Array(letters.length);
  for (const at of [0, letters.length * 123_456, found.length - letters.length]) {
    await found.read(piece, at);
    expect(new TextDecoder().decode(piece)).toBe(letters);
  }
  await expect(found.read(piece, found.length - 3)).rejects.toThrow(InputError);
});

test("a gzip of a tensor file is no sequence", async () => {
  expect(await rejection(residuesOf(gzipSync(readFileSync(fixture("f32.npy")))))).toBeInstanceOf(InputError);
});
