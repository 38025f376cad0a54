/** `attend --max-memory`: real processes over files longer than the ceiling, whose peak is that of VmHWM. Linux only. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, existsSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { byteSize } from "../../src/commands/flags.ts";
import { npyBytes, performer, RUNTIMES, scratch, wave } from "../cli/process.ts";

const MIB = 2 ** 20;
const { path, remove } = scratch();
afterAll(remove);

/** An .npy of which only the first rows are written: the others are zeros that take no disk. */
function sparse(name: string, shape: readonly number[], written: number): void {
  const rowBytes = 4 * shape.slice(1).reduce((a, b) => a * b, 1);
  const head = npyBytes(shape.with(0, 0), () => 0);
  const text = new TextDecoder("latin1").decode(head).replace("(0,", `(${shape[0]},`);
  const length = 128;
  const bytes = new TextEncoder().encode(text.slice(10).trimEnd().padEnd(length - 11) + "\n");
  const fd = openSync(path(name), "w");
  writeSync(fd, head.subarray(0, 10), 0, 10, 0);
  writeSync(fd, bytes, 0, bytes.length, 10);
  writeSync(fd, npyBytes([written, ...shape.slice(1)], (i) => 0.5 * wave(i)), 128, written * rowBytes, 128);
  ftruncateSync(fd, length + shape[0] * rowBytes);
  closeSync(fd);
}

beforeAll(() => {
  sparse("long.npy", [210_000, 256], 2000); // 215 MB
  sparse("wide.npy", [4000, 2048], 500); // 32 heads of 64
});

const SIZES = [["512MiB", 512 * MIB], ["1GiB", 1024 * MIB], ["1.5 gb", 1.5e9], ["2e9", 2e9], ["300", 300]] as const;

test.each(SIZES)("%s is a size", (text, bytes) => expect(byteSize(text)).toBe(bytes));
test.each(["", "many", "-1MB", "0", "1e400", "5 apples", "1MiB2"])('"%s" is none', (text) => {
  expect(() => byteSize(text)).toThrow("expected a size such as 512MiB");
});

const QUICK = ["--features", "positive", "-m", "16", "--check", "32", "--params", "fixed", "--centre", "off"];

describe.skipIf(!existsSync("/proc/self/status"))("the peak of a run (needs /proc)", () => {
  const run = async (runtime: string, words: readonly string[]) => {
    const { code, stdout, stderr } = await performer([...words, "--json"], { runtime });
    return { code, stderr, report: code === 0 ? JSON.parse(stdout) : null };
  };

  describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
    test.each(
      [
        ["wasm", ["--threads", "2", "-o", path("out.npy")]],
        ...(runtime === "bun"
          ? [["wasm", ["--causal"]] as const, ["scalar", ["--rows", "0:20000"]] as const] // seconds each
          : []),
      ] as const,
    )("%s %p stays below what it was given, over 215 MB", async (backend, flags) => {
      const line = ["attend", path("long.npy"), ...QUICK, "--backend", backend, ...flags, "--max-memory", "200MiB"];
      const { report } = await run(runtime, line);
      expect(report.maxBytes).toBe(200 * MIB);
      expect(report.peakBytes).toBeGreaterThan(30 * MIB);
      expect(report.peakBytes).toBeLessThan(200 * MIB);
      expect(report.warnings.map(({ code }: { code: string }) => code)).not.toContain("memory");
    });

    test("too little is refused with the least that works, which then works with small tiles and one thread", async () => {
      const words = ["attend", path("wide.npy"), "--heads", "32", ...QUICK, "--backend", "wasm", "--threads", "2"];
      const refused = await run(runtime, [...words, "--max-memory", "20MiB"]);
      expect(refused.code).toBe(2);
      expect(refused.stderr).toMatch(
        /^performer: Cannot stay below 20MiB: with one thread and tiles of 64 rows wasm takes up to (\d+)MiB; use --max-memory \1MiB/,
      );
      const least = /use --max-memory (\d+MiB)/.exec(refused.stderr)![1];
      const { report } = await run(runtime, [...words, "--max-memory", least]);
      expect(report.attention.tileRows).toBe(64);
      expect(report.backend.device).toContain("× 1 thread");
      expect(report.peakBytes).toBeLessThanOrEqual(byteSize(least));
      const below = await run(runtime, [...words, "--max-memory", `${parseInt(least) - 1}MiB`]);
      expect(below.code).toBe(2);
      const amply = await run(runtime, [...words, "--max-memory", "2GB", "--dry-run"]);
      expect(amply.report).toMatchObject({ maxBytes: 2e9, attention: { tileRows: 1024 } });
      expect(amply.report.plannedBytes).toBeGreaterThan(byteSize(least));
    });
  });

  test("the results are those of the tiles that were chosen", async () => {
    const words = ["attend", path("wide.npy"), "--heads", "32", ...QUICK, "--backend", "wasm"];
    const [planned, usual] = [await run("bun", [...words, "--max-memory", "150MiB"]), await run("bun", words)];
    expect(planned.report.attention.tileRows).toBeLessThan(usual.report.attention.tileRows);
    const [a, b] = [planned, usual].map(({ report }) => report.error.relativeL2.value);
    expect(Math.abs(a / b - 1)).toBeLessThan(1e-3);
    expect(usual.report.maxBytes).toBeNull();
  });

  test("exact attention is planned for, and a backend goes on to the next that fits", async () => {
    const line = ["attend", path("wide.npy"), "--heads", "32", "--rows", "0:512", "--features", "softmax"];
    const { report } = await run("bun", [...line, "--backend", "webgpu,wasm,scalar", "--max-memory", "150MiB"]);
    expect(report.peakBytes).toBeLessThan(150 * MIB);
    expect(report.backend.refused[0].reason).toContain("its memory cannot be planned");
  });
});

test.each([
  [["--backend", "webgpu"], 4, "its memory cannot be planned, as --max-memory asks; that of wasm and scalar can"],
  [["--features", "auto"], 2, "Cannot use --max-memory with --features auto, whose memory is not counted"],
  [["--window", "8"], 2, "Cannot use --max-memory with near keys and far fields, whose memory is not counted"],
])("with %p: exit %i", async (flags, code, words) => {
  const run = await performer(["attend", path("wide.npy"), "--heads", "32", ...flags, "--max-memory", "1GB"]);
  expect(run.code).toBe(code);
  expect(run.stderr).toContain(words);
});
