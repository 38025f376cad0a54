/** Real pipes of a shell: streams in, streams out, several of the program in a row, readers that leave early. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { npyBytes, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
/** More than the writer's first bytes and its ring hold (4 MiB each). */
const LONG: readonly [rows: number, cols: number] = [200_000, 64];
/** Both write the shape in a header of this length, with other spaces in it. */
const HEADER = 128;

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([300, 16], wave));
  writeFileSync(path("long.npy"), npyBytes(LONG, (i) => i % 1021));
});
afterAll(remove);

/** Runs a line of bash in which P is the program; `set -o pipefail` is off, so that statuses can be looked at. */
function shell(runtime: string, line: string): { stdout: Uint8Array; text: string; stderr: string; status: number } {
  const program = [...RUNTIMES[runtime], join(ROOT, "cli.ts")].map((word) => `'${word}'`).join(" ");
  const { stdout, stderr, status } = spawnSync("bash", ["-c", `P() { ${program} "$@"; }\n${line}`], {
    cwd: path("."),
    env: { PATH: process.env.PATH, HOME: path("."), NO_COLOR: "1" },
    maxBuffer: 1 << 28,
    timeout: 60_000,
  });
  return { stdout, text: stdout.toString(), stderr: stderr.toString(), status: status! };
}

const bytesOf = (name: string) => readFileSync(path(name));

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("no attention hands a long stream through byte by byte, in one pass", () => {
    const { stdout, stderr, status } = shell(runtime, "cat long.npy | P attend - --features none -o - | cat");
    expect(status).toBe(0);
    expect(stderr).toContain("GB/s of input");
    expect(stdout.length).toBe(bytesOf("long.npy").length);
    expect(Buffer.compare(stdout.subarray(HEADER), bytesOf("long.npy").subarray(HEADER))).toBe(0);
  });

  test("two in a row give what two runs over files give", () => {
    const flags = "--causal --backend scalar -m 32 --check 0 -q";
    const piped = shell(runtime, `P attend x.npy ${flags} -o - | P attend - ${flags} -o -`);
    expect([piped.stderr, piped.status]).toEqual(["", 0]);
    shell(runtime, `P attend x.npy ${flags} -o once.npy && P attend once.npy ${flags} -o twice.npy`);
    expect(Buffer.compare(piped.stdout, bytesOf("twice.npy"))).toBe(0);
  });

  test("a reader that leaves ends the work quietly, early or late", () => {
    for (const count of [10, 20_000_000]) {
      const line = `P attend long.npy --features none -q -o - | head -c ${count} > /dev/null; echo \${PIPESTATUS[0]}`;
      expect(shell(runtime, line)).toMatchObject({ text: "141\n", stderr: "" });
    }
  });
});
