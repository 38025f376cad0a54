/** `attend --on-nan`: what the command line says of rows with NaN or infinity, and what it writes. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { inside, npyBytes, readNpyBytes, scratch, wave } from "../cli/process.ts";

const { path, remove } = scratch();
afterAll(remove);

const [ROWS, COLS] = [300, 8];
beforeAll(() => {
  const holes = new Map([[93, NaN], [94, -Infinity], [2010, Infinity]]); // rows 11 and 251
  writeFileSync(path("x.npy"), npyBytes([ROWS, COLS], (i) => holes.get(i) ?? wave(i)));
});

/** Runs `attend`; the output's rows, and the report. */
async function attend(...flags: string[]) {
  const args = [
    path("x.npy"),
    "--heads",
    "2",
    "-o",
    path("out.npy"),
    "--tile",
    "64",
    "--backend",
    "scalar",
    "-m",
    "16",
  ];
  const { code, stdout, stderr } = await inside(["attend", ...args, "--json", ...flags]);
  expect(stderr).toBe("");
  expect(code).toBe(0);
  const { data, shape } = readNpyBytes(new Uint8Array(readFileSync(path("out.npy"))));
  expect(shape).toEqual([ROWS, COLS]);
  const rows = Array.from({ length: ROWS }, (_, i) => data.slice(i * COLS, (i + 1) * COLS));
  return { rows, report: JSON.parse(stdout) };
}

const where = (rows: number[][], test: (row: number[]) => boolean) => [...rows.keys()].filter((i) => test(rows[i]));

test("without it the first such number is an error that names file, row, head and value, and the way out", async () => {
  const { code, stderr } = await inside(["attend", path("x.npy"), "--heads", "2", "--backend", "scalar"]);
  expect([code, stderr]).toEqual([
    3,
    `performer: Cannot use "${
      path("x.npy")
    }": row 11, head 1 holds NaN, expected finite numbers (attend has --on-nan skip)\n`,
  ]);
});

test("skip: those rows are 0, all others finite; the report counts them", async () => {
  for (const causal of [[], ["--causal"], ["--features", "softmax"], ["--window", "16"]]) {
    const { rows, report } = await attend("--on-nan", "skip", ...causal);
    expect(where(rows, (row) => row.every((value) => value === 0))).toEqual([11, 251]);
    expect(rows.flat().every(Number.isFinite)).toBe(true);
    expect(report.input.gaps).toEqual({ policy: "skip", queryRows: 2, keyRows: 2 });
    expect(report.warnings[0]).toMatchObject({ code: "gaps" });
  }
});

test("propagate, causal: head 1 is NaN from row 11 on, head 0 from row 251", async () => {
  const { rows, report } = await attend("--on-nan", "propagate", "--causal");
  const head = (h: number) => where(rows, (row) => row.slice(4 * h, 4 * h + 4).every(Number.isNaN));
  expect(head(1)).toEqual(Array.from({ length: ROWS - 11 }, (_, i) => 11 + i));
  expect(head(0)).toEqual(Array.from({ length: ROWS - 251 }, (_, i) => 251 + i));
  expect(report.error.rowsChecked).toBeLessThan(12);
});

test("propagate, every row sees such a key: there is no error to tell, and no crash", async () => {
  const { rows, report } = await attend("--on-nan", "propagate");
  expect(rows.flat().every(Number.isNaN)).toBe(true);
  expect(report.error).toBeNull();
});

test("no attention at all: V goes through, or those rows are 0", async () => {
  const through = await attend("--features", "none", "--on-nan", "propagate");
  expect(where(through.rows, (row) => row.some(Number.isNaN))).toEqual([11, 251]);
  const skipped = await attend("--features", "none", "--on-nan", "skip");
  expect(where(skipped.rows, (row) => row.every((value) => value === 0))).toEqual([11, 251]);
});

test("choosing by trials and a dry run take such rows as well", async () => {
  const { rows } = await attend("--on-nan", "skip", "--features", "auto", "--shrink", "auto");
  expect(where(rows, (row) => row.every((value) => value === 0))).toEqual([11, 251]);
  const dry = await inside(["attend", path("x.npy"), "--on-nan", "skip", "--dry-run", "--backend", "scalar"]);
  expect([dry.code, dry.stderr]).toEqual([0, ""]);
});

test("a checkpoint and a state know nothing of such rows: refused before anything is written", async () => {
  for (const flags of [["--resume"], ["--state-out", path("s.safetensors")]]) {
    const args = ["attend", path("x.npy"), "-o", path("never.npy"), "--on-nan", "skip", ...flags];
    const { code, stderr } = await inside(args);
    expect([code, stderr]).toEqual([2, expect.stringContaining(`Cannot use --on-nan skip with ${flags[0]}`)]);
  }
});
