/** Plots of the real commands, as a person sees them on terminals of several widths, and when there are none. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { npyBytes, performer, type ProcessOptions, ROOT, RUNTIMES, scratch, wave } from "./process.ts";
import { hasTmux, screenOf, type ScreenOptions } from "./screen.ts";

const { path, remove } = scratch();
const ATTEND = ["attend", "x.npy", "--heads", "2", "--backend", "scalar", "-m", "32", "--check", "64"];
const COMPARE = [
  ..."compare x.npy --heads 2 --backend scalar -m 8,32 --check 32 --rows-timed 16 --redraws 1".split(" "),
  "--features",
  "hyperbolic,taylor1",
];
const TUNE = [
  "tune",
  "x.npy",
  "--rows",
  "0:100",
  "--heads",
  "2",
  "--backend",
  "scalar",
  "--error",
  "50%",
  "-m",
  "16",
  "--features",
  "hyperbolic",
];
const BENCH = [
  "bench",
  "--backend",
  "scalar",
  "--heads",
  "1",
  "--head-dim",
  "8",
  "-m",
  "16",
  "--samples",
  "3",
  "--seconds",
  "0.01",
];

beforeAll(() => {
  // Head 1 has larger entries: its errors are larger.
  writeFileSync(path("x.npy"), npyBytes([300, 16], (i) => (i % 16 < 8 ? 0.7 : 1.4) * wave(i)));
  writeFileSync(path("one.npy"), npyBytes([5, 8], wave));
});
afterAll(remove);

const BRAILLE = /[\u2801-\u28ff]/;
const UNICODE = /[^\n\u0020-\u007e]/;
const TITLES =
  /^ {2}(errors of rows|where the errors are|skill per head|error against|error of each|throughput(,| against))/;

/** Pictures of a report: what begins with one of their titles, up to an empty line. */
function pictures(lines: readonly string[]): string[] {
  const found: string[][] = [];
  for (const [i, line] of lines.entries()) {
    if (TITLES.test(line)) found.push(lines.slice(i, lines.findIndex((other, j) => j > i && other.trim() === "")));
  }
  return found.map((picture) => picture.map((line) => line.trimEnd()).join("\n"));
}

const shown = (args: readonly string[], options: Partial<ScreenOptions> & { readonly runtime?: string }) => {
  const command = [...RUNTIMES[options.runtime ?? "bun"], join(ROOT, "cli.ts"), ...args];
  return screenOf(command, { columns: 80, cwd: path("."), ...options });
};

/** Pictures that go into a pipe. */
async function piped(args: readonly string[], columns: number, options: ProcessOptions = {}): Promise<string[]> {
  const env = { COLUMNS: String(columns), ...options.env };
  const { code, stdout, stderr } = await performer([...args, "--plot"], { cwd: path("."), ...options, env });
  expect(stderr).toBe("");
  expect(code).toBe(0);
  return pictures(stdout.split("\n"));
}

describe.each([60, 80, 120])("on a terminal of %i columns", (columns) => {
  // Lines that the terminal has broken would differ from those in a pipe, where nothing is broken.
  test.skipIf(!hasTmux)("attend -v draws its errors, and nothing wraps (needs tmux)", async () => {
    const seen = pictures(await shown([...ATTEND, "-v", "--health"], { columns, env: { NO_COLOR: "1" } }));
    expect(seen.length).toBe(3);
    for (const line of seen.join("\n").split("\n")) expect(line.length).toBeLessThanOrEqual(columns);
    expect(seen).toEqual(await piped([...ATTEND, "--health"], columns));
    expect(seen[0]).toContain("64 of 300 rows, sampled, × 2 heads");
    expect(seen[1]).toMatch(/head 0 [░▒▓█x]+ .*\n {2}head 1 [░▒▓█x]+/);
    expect(seen[2]).toMatch(/head 1 +│[█▉▊▋▌▍▎▏]+ *┊ 0\.\d+ \w+/);
    // As wide as there is room for: each of the 64 rows would do with one character.
    const widest = Math.max(...seen[0].split("\n").map((line) => line.length));
    expect(widest).toBeGreaterThan(columns - 10);
  });

  test.skipIf(!hasTmux)(
    "compare draws a curve per map, and nothing wraps, in colours either (needs tmux)",
    async () => {
      const screen = await shown(COMPARE, { columns, colors: true });
      // deno-lint-ignore no-control-regex
      const seen = pictures(screen.map((line) => line.replace(/\x1b\[[\d;]*m/g, "")));
      expect(seen.length).toBe(1);
      for (const line of seen[0].split("\n")) expect(line.length).toBeLessThanOrEqual(columns);
      expect(seen).toEqual(await piped(COMPARE, columns));
      expect(seen[0]).toMatch(BRAILLE);
      expect(seen[0]).toContain("number of features m, log scale");
      expect(seen[0]).toContain("relative L2 error against exact softmax, log scale");
      expect(seen[0]).toMatch(/\n +8 +32\n/);
      for (const map of ["hyperbolic", "taylor1 (has no m)"]) {
        expect(seen[0]).toContain(` ${map}`);
      }
      expect(screen.join("\n")).toContain("\x1b[36m"); // the first curve
    },
  );
});

test.skipIf(!hasTmux)(
  "tune draws error against time, with what was wanted and exact attention (needs tmux)",
  async () => {
    const [picture] = pictures(await shown(TUNE, { columns: 80, env: { NO_COLOR: "1" } }));
    for (
      const words of [
        "error against time",
        "seconds for all rows, log scale",
        "(chosen)",
        "wanted: at most 0.5",
        "exact attention: about",
      ]
    ) {
      expect(picture).toContain(words);
    }
    for (const line of picture.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
    const memory = pictures(await shown([...TUNE, "--memory", "--ascii"], { columns: 60 }));
    expect(memory[0]).toContain("state in bytes, log scale");
    expect(memory[0]).not.toMatch(UNICODE);
  },
);

test.skipIf(!hasTmux)("bench draws throughput against length (needs tmux)", async () => {
  const [picture] = pictures(
    await shown([...BENCH, "-L", "32,128,512", "--features", "hyperbolic,softmax"], { columns: 60 }),
  );
  expect(picture).toMatch(/\n +32 +128 +512\n/);
  expect(picture).toContain("tokens/s (query rows per second), log scale");
  expect(picture).toContain("A hyperbolic   B softmax");
  const [rows] = pictures(await shown([...BENCH, "-L", "32"], { columns: 60 }));
  expect(rows).toContain("throughput, at rows L 32");
});

test.skipIf(!hasTmux)("Deno draws the same (needs tmux)", async () => {
  const [deno, bun] = await Promise.all(
    ["deno", "bun"].map((runtime) => shown([...ATTEND, "-v"], { runtime, columns: 80 })),
  );
  expect(pictures(deno).length).toBe(2);
  expect(pictures(deno)).toEqual(pictures(bun));
});

describe("characters and whether to draw at all", () => {
  test.skipIf(!hasTmux)("ASCII where a terminal has no braille (needs tmux)", async () => {
    const worlds: Record<string, string>[] = [{ TERM: "dumb" }, { TERM: "linux" }, { LANG: "C" }, {
      LC_ALL: "de_DE.ISO-8859-1",
    }];
    for (const env of worlds) {
      const seen = pictures(await shown([...ATTEND, "-v"], { env: { NO_COLOR: "1", ...env } }));
      expect(seen.length).toBe(2);
      expect(seen.join("").replaceAll("\n", "")).not.toMatch(UNICODE);
    }
  });

  test.skipIf(!hasTmux)(
    "--no-plot, PERFORMER_PLOT=false, and attend without -v draw nothing (needs tmux)",
    async () => {
      expect(pictures(await shown([...ATTEND, "-v", "--no-plot"], {}))).toEqual([]);
      expect(pictures(await shown([...ATTEND, "-v"], { env: { PERFORMER_PLOT: "false" } }))).toEqual([]);
      expect(pictures(await shown(ATTEND, {}))).toEqual([]);
    },
  );

  test.skipIf(!hasTmux)(
    "NO_COLOR and --no-color leave plots without colours, FORCE_COLOR gives a pipe some (needs tmux)",
    async () => {
      const plain = await shown([...ATTEND, "-v", "--no-color"], { colors: true });
      expect(plain.join("\n")).not.toContain("\x1b[");
      const { stdout } = await performer([...ATTEND, "--plot"], {
        cwd: path("."),
        env: { NO_COLOR: "", FORCE_COLOR: "1" },
      });
      expect(stdout).toContain("\x1b[36m█");
    },
  );

  test("a pipe gets none unless --plot asks", async () => {
    for (const args of [[...ATTEND, "-v"], COMPARE, TUNE, [...BENCH, "-L", "16"]]) {
      const { stdout } = await performer(args, { cwd: path(".") });
      expect(pictures(stdout.split("\n"))).toEqual([]);
    }
    expect((await piped(ATTEND, 80)).length).toBe(2);
    // Of a width that nobody says, 100 is taken.
    const [picture] = await piped(ATTEND, 0);
    expect(Math.max(...picture.split("\n").map((line) => line.length))).toBeLessThanOrEqual(100);
  });

  test("other formats have none, and --plot with them is refused before anything is computed", async () => {
    for (const [flags, words] of [[["--json"], "--json"], [["--format", "md"], "--format md"]] as const) {
      const { code, stderr, stdout } = await performer([...ATTEND, "--plot", ...flags], { cwd: path(".") });
      expect([code, stdout]).toEqual([2, ""]);
      expect(stderr).toBe(`performer: Cannot use --plot with ${words}: plots go with text\n`);
    }
    const { code, stdout } = await performer([...ATTEND, "--json", "-v"], {
      cwd: path("."),
      env: { PERFORMER_PLOT: "true" },
    });
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).not.toHaveProperty("rowSquares");
  });

  test("where there is nothing to draw, --plot says why", async () => {
    const say = async (...flags: string[]) =>
      (await performer([...ATTEND, "--plot", ...flags], { cwd: path(".") })).stdout;
    expect(await say("--features", "softmax")).toContain("nothing to draw: exact softmax has no error");
    expect(await say("--check", "0")).toContain(
      "nothing to draw: no row was checked against exact softmax (--check 256",
    );
    // Five rows make a histogram, but no picture of a sequence.
    const few = pictures(
      (await performer(["attend", "one.npy", "--backend", "scalar", "--plot"], { cwd: path(".") })).stdout.split("\n"),
    );
    expect(few.length).toBe(1);
    expect(few[0]).toContain("all 5 rows");
  });
});
