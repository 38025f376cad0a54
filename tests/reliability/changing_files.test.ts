/** Inputs that fail, shrink or change while they are read: never an output of two versions of a file. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  openSync,
  readdirSync,
  renameSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { crc32, deflateRawSync } from "node:zlib";
import type { Attention } from "../../src/attention.ts";
import { type ByteSource, openFile } from "../../src/bytes.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { DiskFile } from "../../src/disk.ts";
import { TransientError } from "../../src/errors.ts";
import { openContainer, openSource } from "../../src/formats/mod.ts";
import { openSink } from "../../src/formats/sink.ts";
import { Inputs } from "../../src/inputs.ts";
import { attend } from "../../src/run.ts";
import { npyBytes, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { rejection } from "../formats/support.ts";
import { zipOf } from "../formats/torch_made.ts";
import { PLAIN } from "../plain_attention.ts";

const { path, remove } = scratch();
afterAll(remove);

const ROWS = 512;
const bytes = npyBytes([ROWS, 8], wave);
beforeAll(() => writeFileSync(path("whole.npy"), bytes));

const attention: Attention = { ...PLAIN, features: "elu" };

/** Attends to a file and calls `during` after the first tile of the first pass (or of the `stage` named); the error, and what is left. */
async function attended(
  file: string | ByteSource,
  during: () => void,
  { causal = false, stage = "", features = attention.features } = {},
): Promise<{ error: Error; left: string[] }> {
  await using container = typeof file === "string" ? await openContainer(file) : await openSource(file);
  const tensor = await container.open();
  await using backend = await scalar.open({ named: true });
  const output = path("out.npy");
  const shape = [ROWS, 8];
  await using opened = await openSink(output, { dtype: "f32", shape, heads: 1, width: 8, layout: "hld" });
  const sink = Object.assign(opened, { path: output, dtype: "f32", shape });
  let done = false;
  const error = await rejection(attend({
    inputs: new Inputs(tensor, tensor, tensor, null),
    attention: { ...attention, causal, features },
    backend,
    refused: [],
    tileRows: 64,
    check: 0,
    redraws: 0,
    sink,
    encoding: null,
    peakBytes: () => 0,
    progress: (at) => {
      if (!done && at.startsWith(stage)) during();
      done ||= at.startsWith(stage);
    },
  }));
  await opened[Symbol.asyncDispose]();
  return { error, left: readdirSync(path(".")).filter((name) => name.includes("out.npy")) };
}

/** Who changes the file, and what the message says of it. */
const changes: [string, (file: string) => void, string][] = [
  ["other numbers", (file) => {
    writeFileSync(file, npyBytes([ROWS, 8], (i) => -wave(i)));
    utimesSync(file, 1, 1); // clocks of file systems tick slowly
  }, "other bytes were written to it"],
  [
    "more bytes",
    (file) => appendFileSync(file, "more"),
    `it had ${bytes.length} bytes and now has ${bytes.length + 4}`,
  ],
  ["fewer bytes", (file) => truncateSync(file, 4000), `it had ${bytes.length} bytes and now has 4000`],
];

describe.each(changes)("%s while it is read", (_, change, words) => {
  test.each([
    ["the keys", { stage: "keys" }],
    ["the queries", { stage: "queries" }],
    ["causal rows", { causal: true }],
    ["exact attention", { features: "softmax" }],
  ])("%s: a clear error to try again, and no output", async (_, how) => {
    writeFileSync(path("x.npy"), bytes);
    const { error, left } = await attended(path("x.npy"), () => change(path("x.npy")), how);
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toContain("x.npy");
    expect(error.message).toContain(words);
    expect(error.message).toContain("run again when nothing writes to it");
    expect(left).toEqual([]);
  });
});

test("a file that is replaced under its name is read to its end as it was", async () => {
  writeFileSync(path("x.npy"), bytes);
  await using container = await openContainer(path("x.npy"));
  writeFileSync(path("new.npy"), npyBytes([ROWS, 8], () => 7));
  renameSync(path("new.npy"), path("x.npy"));
  expect((await container.readAll()).data[5]).toBe(Math.fround(wave(5)));
});

test("what is read whole or unpacked is checked too: a tensor, its bytes, a member of an archive", async () => {
  const changing = async (name: string, content: Uint8Array | string, read: (file: string) => Promise<unknown>) => {
    writeFileSync(path(name), content);
    const error = await rejection(read(path(name)));
    expect([name, error instanceof TransientError, error.message]).toEqual([
      name,
      true,
      expect.stringContaining("it changed while it was read"),
    ]);
  };
  const opened = (use: (container: Awaited<ReturnType<typeof openContainer>>) => Promise<unknown>) => {
    return async (file: string) => {
      await using container = await openContainer(file);
      utimesSync(file, 1, 1);
      return await use(container);
    };
  };
  await changing("x.npy", bytes, opened((container) => container.readAll()));
  await changing(
    "x.npy",
    bytes,
    opened(async (container) => {
      for await (const _ of container.bytes());
    }),
  );
  const packed = { data: new Uint8Array(deflateRawSync(bytes)), deflated: crc32(bytes), size: bytes.length };
  await changing("x.npz", zipOf([{ name: "q.npy", ...packed }]), opened((container) => container.readAll("q")));
});

/** Linux answers with a real EIO where memory of this process is read that is not there. */
const BAD_MEMORY = "/proc/self/mem";

/** Reads of a source fail from position `from` on, as a bad sector or a lost network share makes them. */
function failing(source: ByteSource, from: number): ByteSource {
  const bad = new DiskFile(source.path, openSync(BAD_MEMORY, "r"), Infinity);
  return {
    path: source.path,
    byteLength: source.byteLength,
    read: (into, at) => at + into.length > from ? bad.read(into, 0) : source.read(into, at),
    async [Symbol.asyncDispose]() {
      bad.close();
      await source[Symbol.asyncDispose]();
    },
  };
}

test.skipIf(!existsSync(BAD_MEMORY)).each([1000, bytes.length - 1])(
  "a read error at byte %d names the file and leaves no output (a real EIO: needs Linux)",
  async (from) => {
    const { error, left } = await attended(failing(await openFile(path("whole.npy")), from), () => {});
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toBe(`Cannot read "${path("whole.npy")}": input/output error`);
    expect(left).toEqual([]);
  },
);

describe.each(Object.keys(RUNTIMES))("the command line on %s", (runtime) => {
  test.each([
    ["grows", "printf more >> big.npy", "now has"],
    ["is cut off", "truncate -s 4000 big.npy", "now has 4000"],
  ])("a file that %s while it is read: exit 75", (_, change, words) => {
    writeFileSync(path("big.npy"), npyBytes([400_000, 8], (i) => i % 7));
    // The pipe is full long before the file is read: the change comes in the middle.
    const performer = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].join(" ");
    const command = `${performer} attend big.npy --features none --backend scalar --tile 1000 -q -o - | ` +
      `(head -c 1000 > start; ${change}; cat > rest); echo \${PIPESTATUS[0]}`;
    const { stdout, stderr } = spawnSync("bash", ["-c", command], { cwd: path("."), encoding: "utf8" });
    expect(stderr).toContain('"big.npy": it changed while it was read');
    expect(stderr).toContain(words);
    expect(stdout.trim()).toBe("75");
  });
});
