/** Every example runs on both runtimes and shows what its first comment promises. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, RUNTIMES } from "../cli/process.ts";

/** Numbers of a line, in order. */
const numbersOf = (line: string): number[] =>
  [...line.matchAll(/-?\d+(?:\.\d+)?(?:e-?\d+)?/g)].map(([text]) => Number(text));

/** The numbers of the line that begins so. */
function line(output: string, start: string): number[] {
  const found = output.split("\n").find((line) => line.startsWith(start));
  if (found === undefined) throw new Error(`no line begins with "${start}" in\n${output}`);
  return numbersOf(found.slice(start.length));
}

const falls = (errors: readonly number[]) => errors.every((error, i) => i === 0 || error < errors[i - 1]);

/** What each of them must have printed. */
const SHOWN: Readonly<Record<string, (output: string) => void>> = {
  "01_attend.ts": (output) => {
    const [all] = line(output, "error on all rows");
    expect(line(output, "error on sampled rows")[0]).toBeCloseTo(all, 1);
    expect(all).toBeLessThan(line(output, "of the mean of V")[0] / 2);
    expect(output).toContain("throughput");
  },
  "02_error_against_m.ts": (output) => {
    const [, uniform, ...small] = line(output, "0.3\t");
    expect(falls(small)).toBe(true);
    expect(small[3]).toBeLessThan(uniform / 2);
    const [, large, ...errors] = line(output, "1\t");
    expect(Math.min(...errors)).toBeGreaterThan(large); // worse than no attention at all
  },
  "03_causal_decoding.ts": (output) => {
    expect(line(output, "tokens seen")).toEqual([500]);
    expect(line(output, "numbers in the state")).toEqual([128 * (2 + 32)]);
    expect(line(output, "step by step against one call:")[0]).toBeLessThan(1e-12);
    expect(line(output, "after a branch")).toEqual([500, 501]);
  },
  "04_shards_merge.ts": (output) => {
    expect(line(output, "rows after merging")).toEqual([3000]);
    expect(line(output, "merged against whole:")[0]).toBeLessThan(1e-12);
  },
  "05_feature_maps.ts": (output) => {
    const near = line(output, "30°"), far = line(output, "150°");
    expect(near[1]).toBeLessThan(near[2]); // trigonometric before positive where weights are large
    expect(far[1]).toBeGreaterThan(far[2]);
    expect(far[3]).toBeLessThan(far[2]); // hyperbolic
    expect(output).toContain("hyp-aderf");
  },
  "06_long_file.ts": (output) => {
    expect(line(output, "48502 rows").length).toBe(1);
    expect(line(output, "error")[1]).toBeGreaterThan(0.9);
    expect(line(output, "first rows of")[0]).toBe(2);
  },
  "07_near_and_far.ts": (output) => {
    expect(line(output, "random features, m = 256").at(-1)).toBeLessThan(0);
    expect(line(output, "and 32 clusters, top 8").at(-1)).toBeGreaterThan(0.95);
  },
};

const scripts = readdirSync(join(ROOT, "examples")).filter((name) => name.endsWith(".ts")).sort();

test("every example is shown here, listed in the README, short, and says what it shows", () => {
  expect(scripts).toEqual(Object.keys(SHOWN).sort());
  const readme = readFileSync(join(ROOT, "examples/README.md"), "utf8");
  for (const name of scripts) {
    const text = readFileSync(join(ROOT, "examples", name), "utf8");
    expect([name, readme.includes(`| \`${name}\` |`)]).toEqual([name, true]);
    expect([name, text.split("\n").length <= 50, text.startsWith("/** ")]).toEqual([name, true, true]);
  }
});

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  const [command, ...first] = RUNTIMES[runtime];
  const env = { ...process.env, NO_COLOR: "1" };

  test.each(scripts)("%s", (name) => {
    const ran = spawnSync(command, [...first, join(ROOT, "examples", name)], {
      encoding: "utf8",
      env,
      timeout: 50_000,
    });
    expect([ran.status, ran.stderr]).toEqual([0, ""]);
    SHOWN[name](ran.stdout);
  });

  test("pipeline.sh", () => {
    const performer = [command, ...first, join(ROOT, "cli.ts")].join(" ");
    const script = join(ROOT, "examples/pipeline.sh");
    const ran = spawnSync("sh", [script], { encoding: "utf8", env: { ...env, PERFORMER: performer }, timeout: 50_000 });
    expect([ran.status, ran.stderr]).toEqual([0, expect.stringMatching(/^Error 0\.\d+ exceeds --max-error 0\.05\n$/)]);
    expect(ran.stdout).toContain("f32 [3000, 64]");
    expect(line(ran.stdout, "  error        relative L2")[0]).toBeLessThan(0.1);
    expect(line(ran.stdout, "skill")[0]).toBeGreaterThan(0.8);
    expect(ran.stdout).toContain("not enough (exit 1)");
  });
});
