/** `performer convert` as a process: the same bits in another file, and nothing left behind where that cannot be. */
import { afterAll, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openContainer } from "../../src/formats/mod.ts";
import { performer, readNpyBytes, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);
mkdirSync(path(""), { recursive: true });

const fixture = (name: string) => join(ROOT, "tests/fixtures", name);
const torch = (name: string) => fixture(`torch/${name}.pt`);
const PYTHON = Bun.which("python3");
const hasNumpy = PYTHON !== null && Bun.spawnSync([PYTHON, "-c", "import numpy"]).success;

/** Type, shape and hash of every tensor. */
async function contents(file: string): Promise<Record<string, unknown>> {
  await using container = await openContainer(file);
  const found: Record<string, unknown> = {};
  for (const { name, dtype, shape } of container.members) {
    const hash = createHash("sha256");
    for await (const piece of container.bytes(name)) hash.update(piece);
    found[name] = { dtype, shape, hash: hash.digest("hex") };
  }
  return found;
}

/** Runs convert where that must work. */
async function convert(args: string[], runtime = "bun"): Promise<string> {
  const { code, stdout, stderr } = await performer(["convert", ...args], { runtime });
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}

describe.each(Object.keys(RUNTIMES))("%s", (runtime) => {
  test.each(["types_zip", "views_legacy", "wrapped_zip", "repacked", "big_endian", "golden_self_attention"])(
    "%s keeps every bit on its way through .safetensors",
    async (name) => {
      const out = path(`${runtime}-${name}.safetensors`);
      await convert([torch(name), out], runtime);
      expect(await contents(out)).toEqual(await contents(torch(name)));
      await using from = await openContainer(torch(name));
      await using to = await openContainer(out);
      expect(to.metadata).toEqual(from.metadata);
      const again = path(`${runtime}-${name}-again.safetensors`);
      await convert([out, again], runtime);
      expect(readFileSync(again)).toEqual(readFileSync(out));
    },
  );
});

test("through .npz and back, and out of .npz and .npy", async () => {
  await convert([torch("views_zip"), path("views.safetensors")]);
  const names = "whole,step,transposed,expanded,scalar_view,window,signals,big";
  await convert([torch("views_zip"), path("views.npz"), "--tensor", names]);
  const wanted = await contents(torch("views_zip"));
  expect(await contents(path("views.npz"))).toEqual(
    Object.fromEntries(names.split(",").map((name) => [name, wanted[name]])),
  );
  await convert([path("views.npz"), path("back.safetensors")]);
  expect(await contents(path("back.safetensors"))).toEqual(await contents(path("views.npz")));
  await convert([fixture("deflated.npz"), path("deflated.safetensors")]);
  expect(await contents(path("deflated.safetensors"))).toEqual(await contents(fixture("deflated.npz")));
  await convert([fixture("grid_fortran.npy"), path("grid.npz")]);
  expect(Object.values(await contents(path("grid.npz")))).toEqual(
    Object.values(await contents(fixture("grid_fortran.npy"))),
  );
});

test.skipIf(!hasNumpy)("numpy reads what was written (needs python3 with numpy)", async () => {
  await convert([
    torch("types_zip"),
    path("types.npz"),
    "--tensor",
    "f16,f32,f64,i8,i16,i32,i64,u8,bool,zero_d,empty,big",
  ]);
  const script = `import numpy as np, zipfile, json
assert zipfile.ZipFile("types.npz").testzip() is None
print(json.dumps({k: [a.dtype.str, a.shape, a.ravel()[:4].tolist()] for k, a in np.load("types.npz").items()}))`;
  const { stdout } = Bun.spawnSync([PYTHON!, "-c", script], { cwd: path("."), stderr: "inherit" });
  expect(JSON.parse(stdout.toString())).toMatchObject({
    f16: ["<f2", [2, 3, 4], [-3, -2, -1, 0]],
    i8: ["|i1", [2, 3, 4], [-3, -2, -1, 0]],
    u8: ["|u1", [2, 3, 4], [3, 2, 1, 0]],
    bool: ["|b1", [2, 3, 4], [true, false, false, true]],
    zero_d: ["<f8", [], [2.5]].with(0, "<f4"),
    empty: ["<f4", [0, 4], []],
    big: ["<i8", [3], [2 ** 53 + 1, -(2 ** 63), 2 ** 63 - 1]],
  });
});

describe("--dtype", () => {
  test("rounds floating-point tensors once and keeps the others", async () => {
    await convert([torch("golden_self_attention"), path("half.safetensors"), "--dtype", "f16"]);
    await using from = await openContainer(torch("golden_self_attention"));
    await using to = await openContainer(path("half.safetensors"));
    for (const { name } of from.members) {
      const wanted = Float16Array.from((await from.readAll(name)).data);
      expect([...(await to.readAll(name)).data]).toEqual([...wanted]);
    }
    await convert([torch("types_zip"), path("brain.safetensors"), "--dtype", "bf16"]);
    await using brain = await openContainer(path("brain.safetensors"));
    const kinds = Object.fromEntries(brain.members.map(({ name, dtype }) => [name, dtype]));
    expect(kinds).toMatchObject({ f64: "bf16", f16: "bf16", i64: "i64", u8: "u8", bool: "bool" });
    expect([...(await brain.readAll("f64")).data]).toEqual([...(await brain.readAll("i64")).data]);
  });

  test("bf16 for numpy is refused with the way out, which works", async () => {
    const { code, stderr } = await performer(["convert", torch("types_zip"), path("no.npz")]);
    expect([code, existsSync(path("no.npz"))]).toEqual([2, false]);
    expect(stderr).toContain("--dtype f32");
    await convert([torch("types_zip"), path("yes.npz"), "--dtype", "f32"]);
  });

  test("numbers that become infinite are counted", async () => {
    writeFileSync(path("large.npy"), readFileSync(fixture("f64.npy")));
    const bytes = new Uint8Array(readFileSync(path("large.npy")));
    new DataView(bytes.buffer).setFloat64(bytes.length - 8, 1e300, true);
    writeFileSync(path("large.npy"), bytes);
    const { code, stderr } = await performer(["convert", path("large.npy"), path("small.npy"), "--dtype", "f16"]);
    expect(code).toBe(0);
    expect(stderr).toContain("1 number");
  });
});

test("one tensor as .npy, also on stdout; from stdin", async () => {
  await convert([torch("types_zip"), path("one.npy"), "--tensor", "f64"]);
  const { out } = await performer(["convert", torch("types_zip"), "-", "--tensor", "f64"]);
  expect(out).toEqual(new Uint8Array(readFileSync(path("one.npy"))));
  expect(readNpyBytes(out)).toMatchObject({ descr: "<f8", shape: [2, 3, 4] });
  const input = new Uint8Array(readFileSync(torch("types_legacy")));
  const { code } = await performer(["convert", "-", path("stdin.safetensors")], { input });
  expect(code).toBe(0);
  expect(await contents(path("stdin.safetensors"))).toEqual(await contents(torch("types_legacy")));
});

test("--json, and --drop-aliases where a second name is only that", async () => {
  const found = JSON.parse(await convert([torch("aliases"), path("json.safetensors"), "--json", "--drop-aliases"]));
  expect(found).toMatchObject({ schema: "performer-convert/1", bytes: readFileSync(path("json.safetensors")).length });
  expect(found.tensors.map(({ name }: { name: string }) => name).sort()).toEqual([
    "net.w",
    "proj_updater.instance.own",
    "tied",
  ]);
  expect(Object.keys(await contents(path("json.safetensors")))).toHaveLength(3);
  await convert([torch("aliases"), path("all.safetensors")]);
  expect(Object.keys(await contents(path("all.safetensors")))).toHaveLength(4);
});

describe("what cannot be done leaves nothing behind", () => {
  const damaged = new Uint8Array(readFileSync(torch("repacked")));
  const at = Buffer.from(damaged).indexOf("data/2") + 10; // inside the packed bytes of a storage
  damaged[at] ^= 0xff;
  test.each<[string, string[], number, string]>([
    ["a missing file", ["missing.pt", "out.npz"], 3, "no such file"],
    ["a type that is not read", [torch("unreadable"), "out.safetensors"], 3, '"c"'],
    ["a name that is not there", [torch("types_zip"), "out.safetensors", "--tensor", "f63"], 3, '"f63"'],
    ["many tensors as .npy", [torch("parts"), "out.npy"], 2, "--tensor"],
    ["an unknown suffix", [torch("parts"), "out.pt"], 2, ".safetensors"],
    ["an unknown type", [torch("parts"), "out.npz", "--dtype", "f8"], 2, "expected one of"],
    ["a folder that is not there", [torch("parts"), "no/out.npz"], 2, "no such file"],
    ["damage found while writing", ["damaged.pt", "out.safetensors"], 3, "corrupt"],
    ["no output", [torch("parts")], 2, "OUT"],
  ])("%s", async (_, args, code, words) => {
    const { path: inside, remove: removed } = scratch();
    writeFileSync(inside("damaged.pt"), damaged);
    const { code: found, stderr } = await performer(["convert", ...args], { cwd: inside(".") });
    expect(found).toBe(code);
    expect(stderr).toContain(words);
    expect(readdirSync(inside("."))).toEqual(["damaged.pt"]);
    removed();
  });
});
