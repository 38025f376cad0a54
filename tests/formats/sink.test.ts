/** Outputs: read back by our reader and by numpy where it is there; what is left when writing fails. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { type ByteSink, openOutput } from "../../src/bytes.ts";
import { PerformerError, TransientError, UsageError } from "../../src/errors.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { npzFrame } from "../../src/formats/npz_frame.ts";
import { openSink, type SinkOptions } from "../../src/formats/sink.ts";
import type { FloatArray } from "../../src/tensor.ts";
import { folder, readTensor, rejection, tilesOf } from "./support.ts";

const PYTHON = Bun.which("python3");
const hasNumpy = PYTHON !== null && Bun.spawnSync([PYTHON, "-c", "import numpy"]).success;
const shapes = {
  f32: [10, 12],
  lhd: [10, 3, 4],
  hld: [3, 10, 4],
  bhld: [2, 3, 10, 2],
  blhd: [2, 10, 3, 2],
  line: [10],
};

const values = (length: number): FloatArray => Float64Array.from({ length }, (_, i) => Math.fround(Math.sin(i) * 10));

/** Writes ten rows. */
async function write(path: string, options: SinkOptions, data: FloatArray): Promise<void> {
  await using sink = await openSink(path, options);
  for (const tile of tilesOf(data, 10, 4)) await sink.write(tile);
  await sink.finish();
}

const cases = [
  { shape: shapes.line, heads: 1, width: 1, layout: "hld" },
  { shape: shapes.f32, heads: 3, width: 4, layout: "hld" },
  { shape: shapes.lhd, heads: 3, width: 4, layout: "lhd" },
  { shape: shapes.hld, heads: 3, width: 4, layout: "hld" },
  { shape: shapes.bhld, heads: 6, width: 2, layout: "hld" },
  { shape: shapes.blhd, heads: 6, width: 2, layout: "lhd" },
] as const;

describe.each([".npy", ".npz", ".safetensors"])("%s", (suffix) => {
  for (const dtype of ["f16", "f32", "f64"] as const) {
    test.each(cases)(`${dtype} $shape $layout`, async ({ shape, heads, width, layout }) => {
      await using dir = folder();
      const path = dir.file("out" + suffix);
      const data = values(10 * heads * width);
      await write(path, { dtype, shape, heads, width, layout }, data);
      const name = suffix === ".npy" ? "" : "out";
      const found = await readTensor(path, name, { heads: shape.length === 2 ? heads : undefined, layout });
      const rounded = dtype === "f16" ? Float16Array.from(data) : dtype === "f32" ? Float32Array.from(data) : data;
      expect(found.values).toEqual([...rounded]);
      expect(found.info).toMatchObject({ shape, dtype, heads, width, rows: 10 });
      expect(readdirSync(dir.path)).toEqual(["out" + suffix]);
    });
  }
});

test.skipIf(!hasNumpy)(
  "numpy and zipfile read our .npz and .npy, checksums included (needs python3 with numpy)",
  async () => {
    await using dir = folder();
    const data = values(120);
    const options = { shape: [3, 10, 4], heads: 3, width: 4, layout: "hld", dtype: "f32" } as const;
    await write(dir.file("a.npz"), options, data);
    await write(dir.file("a.npy"), { ...options, dtype: "f16" }, data);
    const script = `import numpy as np, zipfile, json
assert zipfile.ZipFile("a.npz").testzip() is None
a, b = np.load("a.npz")["out"], np.load("a.npy")
print(json.dumps([a.dtype.str, b.dtype.str, a.transpose(1, 0, 2).ravel().tolist()]))`;
    const { stdout } = Bun.spawnSync([PYTHON!, "-c", script], { cwd: dir.path, stderr: "inherit" });
    expect(JSON.parse(stdout.toString())).toEqual(["<f4", "<f2", [...data]]);
  },
);

test("zip64 fields from 4 GiB on, also where only the directory is beyond", async () => {
  for (const count of [2 ** 30, 2 ** 30 - 64, 2 ** 30 - 46, 2 ** 30 - 45, 2 ** 31]) {
    const { head, tail } = npzFrame("f32", [count]);
    const [local, end] = [head(0), tail(0)];
    const view = new DataView(end.buffer, end.length - 22);
    const directory = local.length + count * 4;
    expect(view.getUint32(16, true)).toBe(Math.min(directory, 0xffff_ffff));
    if (directory < 0xffff_ffff) continue;
    const zip64 = new DataView(end.buffer, end.length - 22 - 20 - 56);
    expect(zip64.getUint32(0, true)).toBe(0x06064b50);
    expect(Number(zip64.getBigUint64(48, true))).toBe(directory);
  }
});

const rows = { dtype: "f32", shape: [10, 4], heads: 1, width: 4, layout: "hld" } as const;

describe("when writing fails", () => {
  /** A disk with room for so many bytes. */
  function full(path: string, room: number): ByteSink {
    const output = openOutput(path);
    return {
      path,
      sequential: false,
      async write(bytes, at) {
        if (at + bytes.length > room) throw new TransientError(`Cannot write "${path}": no space left on device`);
        await output.write(bytes, at);
      },
      read: (into, at) => output.read(into, at),
      commit: () => output.commit(),
      [Symbol.asyncDispose]: () => output[Symbol.asyncDispose](),
    };
  }

  test.each([10, 150, 250])("a full disk after %d bytes leaves nothing behind", async (room) => {
    await using dir = folder();
    const path = dir.file("out.npy");
    const error = await rejection((async () => {
      await using sink = await openSink(path, { ...rows, bytes: full(path, room) });
      for (const tile of tilesOf(values(40), 10, 4)) await sink.write(tile);
      await sink.finish();
    })());
    expect(error).toBeInstanceOf(TransientError);
    expect(readdirSync(dir.path)).toEqual([]);
  });

  test.skipIf(!existsSync("/dev/full"))("the system's own full disk is a TransientError", async () => {
    const error = await rejection(write("/dev/full", rows, values(40)));
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toBe('Cannot write "/dev/full": no space left on device');
  });

  test("disposing before finish keeps the old file and removes the new", async () => {
    await using dir = folder();
    const path = dir.file("out.npy");
    writeFileSync(path, "old");
    {
      await using sink = await openSink(path, rows);
      for (const tile of tilesOf(values(40), 10, 5)) await sink.write(tile);
      expect(readdirSync(dir.path)).toHaveLength(2);
    }
    expect(readdirSync(dir.path)).toEqual(["out.npy"]);
    expect(readFileSync(path, "utf8")).toBe("old");
  });

  test("rows that are missing, doubled or of another width are our own error", async () => {
    await using dir = folder();
    await using sink = await openSink(dir.file("out.npy"), rows);
    const tile = { start: 0, rows: 4, cols: 4, data: new Float32Array(16) };
    await sink.write(tile);
    await expect(sink.write(tile)).rejects.toThrow(RangeError);
    await expect(sink.write({ ...tile, start: 4, cols: 3 })).rejects.toThrow(RangeError);
    await expect(sink.write({ ...tile, start: 4, rows: 7 })).rejects.toThrow(RangeError);
    await expect(sink.finish()).rejects.toThrow(RangeError);
  });
});

describe("names", () => {
  test.each(["out.csv", "out", "folder", "missing/out.npy"])("%s is wrong usage", async (name) => {
    await using dir = folder();
    mkdirSync(dir.file("folder"));
    mkdirSync(dir.file("folder.npy"));
    const error = await rejection(openSink(dir.file(name === "folder" ? "folder.npy" : name), rows));
    expect(error).toBeInstanceOf(UsageError);
    expect((error as PerformerError).message).toContain("Cannot write");
    expect(readdirSync(dir.path).sort()).toEqual(["folder", "folder.npy"]);
  });

  test("a link stays a link, an empty tensor is a file, /dev/null takes all layouts", async () => {
    await using dir = folder();
    writeFileSync(dir.file("target.npy"), "old");
    symlinkSync(dir.file("target.npy"), dir.file("link.npy"));
    await write(dir.file("link.npy"), rows, values(40));
    expect(readlinkSync(dir.file("link.npy"))).toBe(dir.file("target.npy"));
    expect((await readTensor(dir.file("target.npy"))).info.rows).toBe(10);

    await using empty = await openSink(dir.file("empty.npy"), { ...rows, shape: [0, 4] });
    await empty.finish();
    await using container = await openContainer(dir.file("empty.npy"));
    expect(container.members[0].shape).toEqual([0, 4]);

    await write("/dev/null", rows, values(40));
    await write("/dev/null", { ...rows, shape: [2, 10, 2], heads: 2, width: 2 }, values(40));
  });
});
