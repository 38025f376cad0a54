/** Files, pipes and temporary files. Processes of Bun and Deno stand in for a shell around the program. */
import { describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { openFile, openOutput, SpoolFile, temporaries } from "../../src/bytes.ts";
import { InputError, TransientError } from "../../src/errors.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { fixture, folder, readTensor, rejection, temporaryFolder } from "./support.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const DENO = join(ROOT, "node_modules", ".bin", "deno");
const RUNTIMES = [
  ["bun", [process.execPath]],
  ["deno", [
    DENO,
    "run",
    "--allow-read",
    "--allow-write",
    "--allow-env",
    "--allow-sys",
    "--config",
    join(ROOT, "deno.json"),
  ]],
] as const;

describe("files that cannot be read", () => {
  test.each([
    ["missing.npy", "no such file"],
    ["folder", "is a directory"],
    ["file.npy/inside", "not a directory"],
  ])("%s is an InputError", async (name, words) => {
    await using dir = folder();
    mkdirSync(dir.file("folder"));
    writeFileSync(dir.file("file.npy"), "x");
    const error = await rejection(openFile(dir.file(name)));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(words);
    expect(error.message).toContain(dir.file(name));
  });

  test.skipIf(!existsSync("/dev/zero"))("a device, and a file without permission", async () => {
    expect((await rejection(openFile("/dev/zero"))).message).toContain("device");
    if (process.getuid?.() === 0) return; // root may read anything
    await using dir = folder();
    writeFileSync(dir.file("secret"), "x");
    chmodSync(dir.file("secret"), 0);
    expect((await rejection(openFile(dir.file("secret")))).message).toContain("permission denied");
  });

  test("a file that shrinks while it is read, and memory that ends", async () => {
    await using dir = folder();
    writeFileSync(dir.file("x"), "0123456789");
    await using source = await openFile(dir.file("x"));
    writeFileSync(dir.file("x"), "0123");
    const error = await rejection(source.read(new Uint8Array(6), 2));
    expect(error).toBeInstanceOf(TransientError); // whoever cut it off may write it anew
    expect(error.message).toContain("it had 10 bytes and now has 4");
    expect(await rejection(memoryBytes(new Uint8Array(3)).read(new Uint8Array(2), 2))).toBeInstanceOf(InputError);
  });
});

test("a spool gives back what was appended, in memory and beyond", async () => {
  await using temporary = temporaryFolder();
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 12 }),
      fc.nat(200),
      async (parts, limit) => {
        await using spool = new SpoolFile("x", limit);
        for (const part of parts) await spool.append(part);
        const all = Buffer.concat(parts);
        expect(spool.byteLength).toBe(all.length);
        expect(spool.onDisk).toBe(all.length > limit);
        const half = Math.floor(all.length / 2);
        const into = new Uint8Array(all.length - half);
        await spool.read(into, half);
        expect(Buffer.from(into).equals(all.subarray(half))).toBe(true);
        expect(await rejection(spool.read(new Uint8Array(1), all.length))).toBeInstanceOf(InputError);
      },
    ),
    { numRuns: 50 },
  );
  expect(temporary.left()).toEqual([]);
});

test.skipIf(process.platform === "win32")("a named pipe is read to its end", async () => {
  await using dir = folder();
  Bun.spawnSync(["mkfifo", dir.file("pipe")]);
  const writer = Bun.spawn(["bash", "-c", `cat '${fixture("f32.npy")}' > '${dir.file("pipe")}'`]);
  const { info } = await readTensor(dir.file("pipe"));
  expect(info.shape).toEqual([4, 3]);
  await writer.exited;
});

test("outputs that are not finished go with removeAll; finished ones stay", async () => {
  await using dir = folder();
  const [done, left] = [openOutput(dir.file("done")), openOutput(dir.file("left"))];
  for (const output of [done, left]) await output.write(Uint8Array.of(1, 2, 3), 0);
  await done.commit();
  temporaries.removeAll();
  expect(readdirSync(dir.path)).toEqual(["done"]);
  await left[Symbol.asyncDispose]();
  await done[Symbol.asyncDispose]();
  expect(readdirSync(dir.path)).toEqual(["done"]);
  expect(statSync(dir.file("done")).mode & 0o444).toBe(0o444 & ~process.umask());
});

describe.each(RUNTIMES)("as a process of %s", (name, [command, ...prefix]) => {
  /** Runs a module with the formats imported; `stdin` is a shell command that is piped into it. */
  async function run(code: string, before = "true", after = "cat") {
    await using dir = folder();
    const imports = `import { openContainer } from ${JSON.stringify(join(ROOT, "src/formats/mod.ts"))};
import { openSink } from ${JSON.stringify(join(ROOT, "src/formats/sink.ts"))};
import { openResidues } from ${JSON.stringify(join(ROOT, "src/formats/fasta.ts"))};
import { gatherRows } from ${JSON.stringify(join(ROOT, "tests/formats/rows.ts"))};\n`;
    writeFileSync(dir.file("main.ts"), imports + code);
    const script = `${before} | "$@" | ${after}`;
    const child = Bun.spawn(["bash", "-c", script, "bash", command, ...prefix, dir.file("main.ts")], {
      cwd: ROOT,
      stdout: "pipe",
      stderr: "pipe",
    });
    const [out, err] = await Promise.all([new Response(child.stdout).bytes(), new Response(child.stderr).text()]);
    await child.exited;
    return { out, text: new TextDecoder().decode(out), err };
  }

  const print = `
    const all = {};
    for (const { name } of container.members) all[name] = [...(await container.readAll(name, "f64")).data];
    console.log(JSON.stringify(all));`;
  /** JSON has no -0. */
  const shown = (value: number) => value === 0 ? 0 : value;
  const expected = JSON.parse(readFileSync(fixture("expected.json"), "utf8"));

  test("files are read as here", async () => {
    const files = ["stored.npz", "deflated.npz", "zip64.npz", "f16_big.npy", "i64.npy", "grid4_fortran.npy"];
    const code = files.map((file) =>
      `{ await using container = await openContainer(${JSON.stringify(fixture(file))});${print} }`
    );
    const { text, err } = await run(code.join("\n"));
    expect(err).toBe("");
    const found = text.trim().split("\n").map((line) => JSON.parse(line));
    for (const [i, file] of files.entries()) {
      for (const { name, values } of expected[file]) expect(found[i][name]).toEqual(values.map(shown));
    }
  });

  test("a slow pipe, and gzip members", async () => {
    const slow = `(head -c 100 '${fixture("f32.npy")}'; sleep 0.1; tail -c +101 '${fixture("f32.npy")}')`;
    const piped = await run(`await using container = await openContainer("-");${print}`, slow);
    expect(piped.err).toBe("");
    expect(Object.values(JSON.parse(piped.text))[0]).toEqual(expected["f32.npy"][0].values.map(shown));
    const residues = await run(
      `await using found = await openResidues("-"); console.log(found.length, found.records.length);`,
      `cat '${fixture("reads.fa.gz")}'`,
    );
    expect(residues).toMatchObject({ err: "", text: "17 4\n" });
  });

  test("an .npy to a pipe in row order and heads first; a closed pipe is EPIPE", async () => {
    const sink = (shape: string, rows: number) => `
      const sink = await openSink("-", { dtype: "f32", shape: ${shape}, heads: 2, width: 3, layout: "hld" });
      try {
        for (let start = 0; start < ${rows}; start += 2) {
          await sink.write({ start, rows: 2, cols: 6, data: Float32Array.from({ length: 12 }, (_, i) => start * 6 + i) });
        }
        await sink.finish();
      } catch (error) { console.error(error.code); }
      await sink[Symbol.asyncDispose]();`;
    await using dir = folder();
    for (const shape of ["[4, 6]", "[2, 4, 3]"]) {
      const { out, err } = await run(sink(shape, 4));
      expect(err).toBe("");
      writeFileSync(dir.file("out.npy"), out);
      const { values } = await readTensor(dir.file("out.npy"), undefined, { heads: 2 });
      expect(values).toEqual(Array.from({ length: 24 }, (_, i) => i));
    }
    const closed = await run(sink("[400000, 6]", 400_000), "true", "head -c 1");
    expect(closed.err.trim()).toBe("EPIPE");
  }, 20_000);

  test("rows beyond 4 GiB", async () => {
    await using dir = folder();
    const path = JSON.stringify(dir.file("sparse.npy"));
    const { text, err } = await run(`
      import * as fs from "node:fs";
      import { npyHeader } from ${JSON.stringify(join(ROOT, "src/formats/npy.ts"))};
      const fd = fs.openSync(${path}, "w");
      const head = npyHeader("f32", [20_000_000, 64]);
      fs.ftruncateSync(fd, head.length + 20_000_000 * 256);
      fs.writeSync(fd, head, 0, head.length, 0);
      const line = new Uint8Array(new Float32Array(64).fill(${name.length}).buffer);
      fs.writeSync(fd, line, 0, 256, head.length + 19_999_999 * 256);
      fs.closeSync(fd);
      await using container = await openContainer(${path});
      const { data } = await gatherRows(await container.open(), [0, 19_999_999], "f32");
      console.log(data[0], data[127]);`);
    expect(err).toBe("");
    expect(text).toBe(`0 ${name.length}\n`);
  });
});
