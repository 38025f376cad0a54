/** `attend --health`: what the report says of each head, in every format. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { RandomStream } from "../../src/random.ts";
import { npyBytes, performer, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
const [L, D, HEADS] = [320, 16, 2];
const INPUTS = ["q", "k", "v"].flatMap((name) => [`--${name}`, path(`${name}.npy`)]);
const FLAGS = [...INPUTS, "--heads", String(HEADS), "--backend", "scalar", "--health"];

beforeAll(() => {
  // Head 0 is flat, head 1 so peaked that rows see little but one key.
  ["q", "k", "v"].forEach((name, i) => {
    const random = new RandomStream(i + 1);
    const spread = (at: number) => name === "v" ? 1 : at % (HEADS * D) < D ? 0.3 : 2.5;
    writeFileSync(path(`${name}.npy`), npyBytes([L, HEADS * D], (at) => spread(at) * random.normal()));
  });
});
afterAll(remove);

async function run(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await performer(["attend", ...FLAGS, ...args]);
  expect([code, stderr]).toEqual([0, ""]);
  return stdout;
}
const report = async (...args: string[]) => JSON.parse(await run("--json", ...args));

test.each(Object.keys(RUNTIMES))(
  "the report on %s: a table and a line of verdict and advice per head",
  async (runtime) => {
    const { stdout } = await performer(["attend", ...FLAGS], { runtime });
    const lines = stdout.split("\n");
    const header = lines.findIndex((line) =>
      /^ +head +‖x\+y‖² +as seen +Σ H +N_eff p5 +median +p95 +ln Z bias/.test(line)
    );
    expect(header).toBeGreaterThan(0);
    expect(lines[header - 1]).toContain("per head, of 256 sampled rows · of all rows none is special");
    expect(lines[header + 1]).toMatch(/^ +0 .* good$/);
    expect(lines[header + 2]).toMatch(/^ +1 .* no-skill$/);
    expect(lines[header + 3]).toMatch(/^ +head 0 +good: captures \d\d %$/);
    expect(lines[header + 4]).toMatch(
      /^ +head 1 +no skill: .*; φ̄ = [\d.]+ after centring, random features need about 4 or less; use --window 64 --heavy 64/,
    );
  },
);

test("--json: keys, in order, and figures that belong together", async () => {
  const { health, error, attention } = await report();
  expect(Object.keys(health)).toEqual(["rows", "featureRows", "emptyRows", "nonPositive", "recomputed", "heads"]);
  expect(health).toMatchObject({ rows: 256, featureRows: 256, emptyRows: 0, nonPositive: 0, recomputed: 0 });
  expect(health.heads.length).toBe(HEADS);
  health.heads.forEach((head: Record<string, number>, h: number) => {
    expect(Object.keys(head).sort()).toEqual([
      "advice",
      "effectiveFeatures",
      "emptyRows",
      "head",
      "logNormaliserBias",
      "logVariance",
      "nonPositive",
      "phi",
      "phiBefore",
      "relativeL2",
      "skill",
      "summary",
      "uniformBaseline",
      "verdict",
    ]);
    const { relativeL2, uniformBaseline, skill } = head;
    expect({ relativeL2, uniformBaseline, skill }).toEqual(error.perHead[h]);
    // The fit looks at all rows, health at 256 of the 320 queries.
    expect(Math.abs(head.phi / attention.params.heads[h].phi - 1)).toBeLessThan(0.1);
    expect(Math.abs(head.logVariance / attention.params.heads[h].logVariance - 1)).toBeLessThan(0.1);
  });
  const [flat, peaked] = health.heads;
  expect(flat).toMatchObject({ verdict: "good", advice: null });
  expect(flat.effectiveFeatures.median).toBeGreaterThan(50);
  expect(Math.abs(flat.logNormaliserBias)).toBeLessThan(0.05);
  expect(peaked.verdict).toBe("no-skill");
  expect(peaked.advice).toContain("--features auto");
  expect(peaked.effectiveFeatures.median).toBeLessThan(10);
  expect(peaked.logNormaliserBias).toBeLessThan(-1);
});

test("without the flag nothing is looked at; the rest of the report is the same", async () => {
  const plain = FLAGS.slice(0, -1);
  const { stdout } = await performer(["attend", ...plain, "--json"]);
  const [without, with_] = [JSON.parse(stdout), await report()];
  expect(without.health).toBeNull();
  expect(Object.keys(without)).toEqual(Object.keys(with_));
  expect(without.error).toEqual(with_.error);
});

describe("kinds of attention", () => {
  test("causal: the features of 64 rows, and no centring by itself", async () => {
    const { health } = await report("--causal");
    expect(health).toMatchObject({ rows: 256, featureRows: 64 });
    expect(health.heads[0].phi).toBe(health.heads[0].phiBefore);
    expect(await run("--causal")).toContain("features of 64 of them");
    expect(health.heads[1].summary).toContain("random features need about 4 or less");
  });

  test("near and far: sizes and errors; exact: nothing", async () => {
    const near = (await report("--window", "32", "--heavy", "8")).health;
    expect(near.featureRows).toBe(0);
    expect(near.heads[1]).toMatchObject({ phi: null, logVariance: null, effectiveFeatures: null });
    expect(near.heads[1].advice).toContain("--window 64");
    const text = await run("--window", "32");
    expect(text).toMatch(/ head +‖x\+y‖² +relative L2 +uniform +skill +verdict\n/);
    expect((await report("--features", "softmax")).health).toBeNull();
  });

  test("signed features: the share of denominators at or below 0", async () => {
    const { health } = await report("--features", "trigonometric", "-m", "32");
    expect(health.nonPositive).toBeGreaterThan(0.05);
    expect(health.heads[1].nonPositive).toBeGreaterThan(0.05);
    expect(health.heads[1].advice).toStartWith("use --features hyperbolic");
    expect(await run("--features", "trigonometric", "-m", "32")).toMatch(/of all rows [\d.]+ % divide by ≤ 0/);
  });

  test("numerics of another system: sizes and errors, and its own remedy", async () => {
    const { health } = await report("--features", "positive", "--compat", "lucidrains");
    expect(health.featureRows).toBe(0);
    expect(health.heads[1].advice).toContain("--compat exact");
  });
});

test("a checkpoint's layer: what is advised is accepted, and helps", async () => {
  const golden = (name: string) => join(ROOT, "tests/golden/lm/masked_batch2", name);
  const random = new RandomStream(9);
  writeFileSync(path("rows.npy"), npyBytes([200, 64], () => random.normal()));
  const layer = ["attend", path("rows.npy"), "--weights", golden("model.pt"), "--config", golden("config.json")];
  const of = async (...args: string[]) => {
    const { code, stdout, stderr } = await performer([...layer, "--backend", "scalar", "--health", "--json", ...args]);
    expect([code, stderr]).toEqual([0, ""]);
    return JSON.parse(stdout);
  };
  const before = await of();
  const advised = /use (--features \S+ --centre on) \(Σ H/.exec(before.health.heads[0].advice)!;
  for (const { message, remedy } of before.warnings) expect([message, remedy].join()).not.toContain("--window");
  const after = await of(...advised[1].split(" "));
  expect(after.error.skill).toBeGreaterThan(before.error.skill + 0.2);
});

test("csv has the worst head, Markdown a table of heads", async () => {
  const [header, row] = (await run("--format", "csv")).trim().split("\n").map((line) => line.split(","));
  const cell = (name: string) => row[header.indexOf(name)];
  expect([cell("worstHead"), cell("worstVerdict")]).toEqual(["1", "no-skill"]);
  expect(Number(cell("worstEffectiveFeatures"))).toBeLessThan(10);
  const md = await run("--format", "md");
  expect(md).toMatch(/\| head \| ‖x\+y‖² \|.*\| verdict \|\n\|---:\|/);
  expect(md).toContain("* head 0: good: captures");
});

test("without checked rows there is nothing to look at", async () => {
  const { code, stderr } = await performer(["attend", ...FLAGS, "--check", "0"]);
  expect(code).toBe(2);
  expect(stderr).toContain("Cannot use --health without a check: leave --check 0 out");
});
