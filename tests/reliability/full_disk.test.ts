/** No room: for outputs, for reports, for what is kept in the temporary folder. Exit 75, and nothing is left behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, openSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DiskFile } from "../../src/disk.ts";
import { TransientError } from "../../src/errors.ts";
import { PipeWriter } from "../../src/pipe_writer.ts";
import { THREADS } from "../../src/threads.ts";
import { npyBytes, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { rejection } from "../formats/support.ts";

const { path, remove } = scratch();
afterAll(remove);

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([20_000, 16], wave));
  writeFileSync(path("heads.npy"), npyBytes([2, 10_000, 16], wave));
  writeFileSync(path("large.npy"), npyBytes([300_000, 16], (i) => i % 5)); // beyond what a spool keeps in memory
});

/** Runs a shell line in the scratch folder; `performer` is the program. */
function shell(runtime: string, line: string) {
  const command = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].join(" ");
  const script = `performer() { ${command} "$@"; }; ${line}`;
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { cwd: path("."), encoding: "utf8" });
  return { status, stdout, stderr };
}

const QUICK = "--backend scalar --features elu --check 0";
const FULL = "/dev/full";

test.skipIf(!existsSync(FULL))("a write that finds no room names the output and not the temporary file", async () => {
  const file = new DiskFile("/folder/.out.npy.123.tmp", openSync(FULL, "w"), 0, { name: "out.npy", wayOut: "; go on" });
  const error = await rejection(file.write(new Uint8Array(10), 0));
  expect(error).toBeInstanceOf(TransientError);
  expect(error.message).toBe('Cannot write "out.npy": no space left on device; go on');
  file.close();
});

describe.skipIf(!existsSync(FULL)).each(Object.keys(RUNTIMES))("a full device on %s", (runtime) => {
  test.each([
    [`attend x.npy ${QUICK} -o ${FULL}`, `"${FULL}"`],
    [`attend heads.npy ${QUICK} -o ${FULL}`, `"${FULL}"`],
    [`attend large.npy --backend scalar --features none -o - > ${FULL}`, '"standard output"'],
    [`attend x.npy ${QUICK} --json > ${FULL}`, '"standard output"'],
    [`inspect x.npy > ${FULL}`, '"standard output"'],
    [`--help > ${FULL}`, '"standard output"'],
  ])("performer %s: exit 75", (line, what) => {
    const { status, stderr } = shell(runtime, `performer ${line}`);
    expect(stderr).toBe(`performer: Cannot write ${what}: no space left on device\n`);
    expect(status).toBe(75);
  });

  test("messages that find no room themselves change no exit code", () => {
    expect(shell(runtime, `performer attend missing.npy 2> ${FULL}`).status).toBe(3);
    expect(shell(runtime, `performer attend x.npy ${QUICK} -o - > ${FULL} 2> ${FULL}`).status).toBe(75);
  });
});

const mayMount = spawnSync("unshare", ["--mount", "true"]).status === 0;

describe.skipIf(!mayMount).each(Object.keys(RUNTIMES))(
  "a small file system on %s (needs root to mount one)",
  (runtime) => {
    /** Runs a line where ./tiny has 256 KiB, which it must not fill with anything that stays. */
    const inTiny = (line: string) => {
      const script = `mkdir -p tiny; mount -t tmpfs -o size=256k tmpfs tiny; ${line}; echo $? $(ls -A tiny)`;
      const command = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].join(" ");
      const args = ["--mount", "bash", "-c", `performer() { ${command} "$@"; }; ${script}`];
      const { stdout, stderr } = spawnSync("unshare", args, { cwd: path("."), encoding: "utf8" });
      return { left: stdout.trim(), stderr };
    };

    test.each([
      ["in order", `attend x.npy ${QUICK} -o tiny/out.npy`, '"tiny/out.npy"'],
      ["heads first", `attend heads.npy ${QUICK} -o tiny/out.npy`, '"tiny/out.npy"'],
      ["an archive", `attend x.npy ${QUICK} -o tiny/out.npz`, '"tiny/out.npz"'],
      ["a conversion", "convert x.npy tiny/out.safetensors", '"tiny/out.safetensors"'],
    ])("an output %s: exit 75, and nothing is left", (_, line, what) => {
      const { left, stderr } = inTiny(`performer ${line}`);
      expect(stderr).toBe(`performer: Cannot write ${what}: no space left on device\n`);
      expect(left).toBe("75");
    });

    test.each([
      ["standard input", `attend - ${QUICK} < large.npy`],
      ["an output that a pipe takes in another order", `attend heads.npy ${QUICK} -o - > /dev/null`],
    ])("%s in the temporary folder: exit 75, and what to do about it", (_, line) => {
      const { left, stderr } = inTiny(`TMPDIR=$PWD/tiny performer ${line}`);
      expect(stderr).toMatch(/^performer: Cannot write ".*\/tiny": no space left on device; .* set TMPDIR to a folder/);
      expect(left).toBe("75");
    });
  },
);

test("a thread that writes and is gone is an error, not a wait for ever", async () => {
  const usual = THREADS.pipe;
  writeFileSync(path("gone.mjs"), "process.exit(3);\n");
  Object.assign(THREADS, { pipe: new URL(`file://${path("gone.mjs")}`) });
  try {
    await using writer = new PipeWriter(openSync("/dev/null", "w"), "the pipe");
    const bytes = new Uint8Array(8 << 20); // more than a ring holds, and more than is written without a thread
    const error = await rejection((async () => {
      await writer.write(bytes);
      await writer.drain();
    })());
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toContain('"the pipe": the thread that writes is gone');
  } finally {
    Object.assign(THREADS, { pipe: usual });
  }
});
