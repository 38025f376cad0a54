/** .npz and .safetensors against what numpy says is in the fixtures; damaged and hostile ones. */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { crc32, deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { InputError, PerformerError } from "../../src/errors.ts";
import type { CheckedSource } from "../../src/formats/checked.ts";
import { Container } from "../../src/formats/container.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { npyHeader } from "../../src/formats/npy.ts";
import { npz } from "../../src/formats/npz.ts";
import { safetensors } from "../../src/formats/safetensors.ts";
import { allRows, countingByteSource, fixture, folder, rejection, temporaryFolder } from "./support.ts";

interface Expected {
  name: string;
  dtype: string;
  shape: number[];
  order: string;
  values: number[];
}
const expected: Record<string, Expected[]> = JSON.parse(readFileSync(fixture("expected.json"), "utf8"));
const bytesOf = (file: string) => new Uint8Array(readFileSync(fixture(file)));

/** A container over bytes in memory. */
async function contained(format: typeof npz, bytes: Uint8Array): Promise<Container> {
  const source = memoryBytes(bytes, "made.file");
  return new Container(format.name, source, await format.open(source));
}

test.each(["stored.npz", "deflated.npz", "zip64.npz", "all.safetensors"])(
  "%s holds what numpy put in",
  async (file) => {
    await using container = await openContainer(fixture(file));
    expect(container.format).toBe(file.endsWith(".npz") ? "npz" : "safetensors");
    for (const { name, dtype, shape, order, values } of expected[file]) {
      expect(container.members.find((member) => member.name === name)).toMatchObject({ dtype, shape, order });
      const { data } = await container.readAll(name, "f64");
      expect([...data]).toEqual(values);
      if (shape.length !== 2) continue;
      const source = await container.open(name);
      expect(await allRows(source, 4)).toEqual(values);
      expect(await allRows(source, 4)).toEqual(values);
    }
  },
);

test("names that are not there are answered with those that are", async () => {
  await using container = await openContainer(fixture("stored.npz"));
  expect((await rejection(container.open("p"))).message).toMatch(/"p".*"q", "k", "v"/);
  expect((await rejection(container.open())).message).toContain("name one");
});

describe("npz", () => {
  test("a stored member is read in place, a deflated one once", async () => {
    const stored = countingByteSource(memoryBytes(bytesOf("stored.npz"), "stored.npz"));
    const inPlace = await (await npz.open(stored)).tensors[0].locate();
    expect((inPlace.source as CheckedSource).source).toBe(stored);
    const deflated = countingByteSource(memoryBytes(bytesOf("deflated.npz"), "deflated.npz"));
    await using contents = await npz.open(deflated);
    const before = deflated.reads;
    const [one, two] = await Promise.all([contents.tensors[0].locate(), contents.tensors[0].locate()]);
    expect(one.source).toBe(two.source);
    expect(deflated.reads - before).toBe(1);
  });

  test("a large deflated member goes to a temporary file that leaves nothing", async () => {
    const rows = 100_000; // 25.6 MB: more than is kept in memory
    const data = Float32Array.from({ length: rows * 64 }, (_, i) => i % 1000);
    const member = joined(npyHeader("f32", [rows, 64]), new Uint8Array(data.buffer));
    await using temporary = temporaryFolder();
    {
      await using container = await contained(npz, zip([{ name: "x.npy", member }]));
      const source = await container.open("x", { rows: { start: rows - 2, end: rows } });
      expect((await allRows(source)).slice(64)).toEqual([...data.subarray(-64)]);
    }
    expect(temporary.left()).toEqual([]);
  });

  const small = joined(npyHeader("f32", [2]), new Uint8Array(8));
  test.each([
    ["unpacks to more than declared", { size: small.length - 4, shape: 1 }],
    ["unpacks to less than declared", { size: small.length + 4, shape: 2 }],
    ["has a wrong checksum", { crc: 1, shape: 2 }],
    ["declares what no deflate can give", { size: 2 ** 31, shape: 2 }],
    ["uses an unknown method", { method: 12, shape: 2 }],
    ["is encrypted", { flags: 1, shape: 2 }],
  ])("a member that %s is refused", async (_, { shape, ...lies }) => {
    const member = joined(npyHeader("f32", [shape]), new Uint8Array(8));
    const error = await rejection((async () => {
      await using container = await contained(npz, zip([{ name: "x.npy", member, ...lies }]));
      await container.readAll("x");
    })());
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(/"x" in "made.file"/);
  });

  test("doubles, climbing names, checkpoints and other zips are refused", async () => {
    const message = async (names: string[]) => {
      const error = await rejection(contained(npz, zip(names.map((name) => ({ name, member: small })))));
      expect(error).toBeInstanceOf(InputError);
      return error.message;
    };
    expect(await message(["x.npy", "x.npy"])).toContain("twice");
    expect(await message(["../x.npy"])).toContain("relative path");
    expect(await message(["a/../../x.npy"])).toContain("relative path");
    expect(await message(["/x.npy"])).toContain("absolute path");
    expect(await message(["C:/x.npy"])).toContain("absolute path");
    expect(await message(["model/data.pkl"])).toContain("PyTorch");
    expect(await message(["notes.txt"])).toContain("without .npy");
  });

  test.each(["stored.npz", "deflated.npz"])(
    "%s cut or with any wrong byte is read or refused, never a crash",
    async (file) => {
      const bytes = bytesOf(file);
      const reads = async (copy: Uint8Array) => {
        try {
          await using container = await contained(npz, copy);
          for (const { name } of container.members) await container.readAll(name);
        } catch (error) {
          if (!(error instanceof PerformerError)) throw error;
        }
      };
      await fc.assert(
        fc.asyncProperty(fc.nat(bytes.length - 1), fc.nat(255), async (at, value) => {
          const copy = bytes.slice();
          copy[at] = value;
          await reads(copy);
          await reads(bytes.slice(0, at));
        }),
        { numRuns: 300 },
      );
    },
  );
});

describe("safetensors", () => {
  test("metadata, and types that are refused only when opened", async () => {
    await using container = await openContainer(fixture("all.safetensors"));
    expect(container.metadata).toEqual({ format: "pt", note: "é" });
    const error = await rejection(container.readAll("eight"));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toMatch(/"eight" .*F8_E4M3/);
  });

  const tensor = (shape: number[], start: number, end: number, dtype: unknown = "F32") => ({
    dtype,
    shape,
    data_offsets: [start, end],
  });
  test.each([
    ["an overlap", { a: tensor([2], 0, 8), b: tensor([1], 4, 8) }, "shares"],
    ["a hole", { a: tensor([1], 0, 4), b: tensor([1], 8, 12) }, "no tensor"],
    ["bytes left over", { a: tensor([1], 0, 4) }, "no tensor"],
    ["bytes beyond the file", { a: tensor([4], 0, 16) }, "12 bytes"],
    ["a span that is not dtype × shape", { a: tensor([2], 0, 12) }, "needs 8"],
    ["offsets backwards", { a: tensor([3], 12, 0) }, "12 to 0"],
    ["a negative size", { a: tensor([-3], 0, 12) }, "shape"],
    ["no dtype", { a: tensor([3], 0, 12, 3) }, "dtype"],
    ["null for a tensor", { a: null }, "dtype"],
  ])("%s is refused", async (_, header, words) => {
    const error = await rejection(contained(safetensors, made(JSON.stringify(header), 12)));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(words);
  });

  test.each(["[]", "{", '{"a":\xff}', "{}{}"])("header %s is refused", async (text) => {
    expect(await rejection(contained(safetensors, made(text, 0)))).toBeInstanceOf(InputError);
  });

  test("a header longer than the file, and every cut of one", async () => {
    await using dir = folder();
    const bytes = bytesOf("all.safetensors");
    for (const length of [0, 1, 8, 9, 20, 100, bytes.length - 1]) {
      writeFileSync(dir.file("cut"), bytes.subarray(0, length));
      const error = await rejection(openContainer(dir.file("cut")));
      expect(error).toBeInstanceOf(InputError);
    }
  });
});

test.each(["reads.fa", "reads.fa.gz", "plain.txt", "expected.json"])("%s is no tensor file", async (file) => {
  const error = await rejection(openContainer(fixture(file)));
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).toContain(".safetensors");
});

function made(header: string, data: number): Uint8Array {
  const text = Uint8Array.from(header, (letter) => letter.charCodeAt(0));
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  return joined(length, text, new Uint8Array(data));
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A zip of deflated members, with lies on request. */
function zip(
  members: { name: string; member: Uint8Array; size?: number; crc?: number; method?: number; flags?: number }[],
): Uint8Array {
  const locals: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, member, size = member.length, crc = crc32(member), method = 8, flags = 0 } of members) {
    const packed = deflateRawSync(member);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(flags, 2);
    common.writeUInt16LE(method, 4);
    common.writeUInt32LE(crc, 10);
    common.writeUInt32LE(packed.length, 14);
    common.writeUInt32LE(size, 18);
    common.writeUInt16LE(name.length, 22);
    const local = joined(Uint8Array.of(0x50, 0x4b, 3, 4), common, Buffer.from(name), packed);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(at, 10);
    directory.push(joined(Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), common, rest, Buffer.from(name)));
    locals.push(local);
    at += local.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(members.length, 8);
  end.writeUInt16LE(members.length, 10);
  end.writeUInt32LE(joined(...directory).length, 12);
  end.writeUInt32LE(at, 16);
  return joined(...locals, ...directory, end);
}
