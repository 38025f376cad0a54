/** `attend --decay`: what is computed, what is reported, what is refused. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { npyBytes, performer, readNpyBytes, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const SCALAR = ["--backend", "scalar"];
const ROWS = 200, HEADS = 4, WIDTH = 8;

beforeAll(() => {
  const npy = (phase: number) => npyBytes([ROWS, HEADS * WIDTH], (i) => 0.4 * wave(i + phase));
  writeFileSync(path("q.npy"), npy(0));
  writeFileSync(path("k.npy"), npy(5000));
  writeFileSync(path("v.npy"), npy(9000));
});
afterAll(remove);

const run = (args: readonly string[], runtime?: string) => {
  const inputs = ["--q", path("q.npy"), "--k", path("k.npy"), "--v", path("v.npy"), "--heads", String(HEADS)];
  return performer(["attend", ...inputs, ...args], { runtime });
};

const read = (name: string) => readNpyBytes(new Uint8Array(readFileSync(path(name)))).data;

/** Softmax of S q·k − λ (i − j), written out. */
function truth(decay: readonly number[]): Float64Array {
  const [q, k, v] = ["q", "k", "v"].map((name) => read(`${name}.npy`));
  const cols = HEADS * WIDTH;
  const out = new Float64Array(ROWS * cols);
  for (let i = 0; i < ROWS; i++) {
    for (let h = 0; h < HEADS; h++) {
      let total = 0;
      for (let j = 0; j <= i; j++) {
        let dot = 0;
        for (let l = h * WIDTH; l < (h + 1) * WIDTH; l++) dot += q[i * cols + l] * k[j * cols + l];
        const weight = Math.exp(dot / Math.sqrt(WIDTH) - decay[h] * (i - j));
        total += weight;
        for (let l = h * WIDTH; l < (h + 1) * WIDTH; l++) out[i * cols + l] += weight * v[j * cols + l];
      }
      for (let l = h * WIDTH; l < (h + 1) * WIDTH; l++) out[i * cols + l] /= total;
    }
  }
  return out;
}

test.each(Object.keys(RUNTIMES))("alibi is reported, computed and checked on %s", async (runtime) => {
  const alibi = [0.25, 0.0625, 2 ** -6, 2 ** -8];
  const args = ["--causal", "--decay", "alibi", "-m", "2048", "-o", path("out.npy"), "--json", "--backend", "wasm"];
  const { code, stdout, stderr } = await run(args, runtime);
  expect([code, stderr]).toEqual([0, ""]);
  const { attention, error } = JSON.parse(stdout);
  expect(attention.decay).toEqual(alibi);
  // A kernel value has relative variance (e^φ − 1)/m with φ = ‖x + y‖²; averages over keys have less.
  const bound = Math.sqrt((Math.exp(error.phi) - 1) / 2048);
  expect(error.relativeL2.value).toBeLessThan(bound);
  // The check is right: the same distance by softmax with the bias, written out, over all rows, all of which are checked.
  expect(error.rowsChecked).toBe(ROWS);
  const data = read("out.npy");
  const exact = truth(alibi);
  const norm = (f: (at: number) => number) => Math.sqrt(exact.reduce((sum, _, at) => sum + f(at) ** 2, 0));
  const relative = norm((at) => data[at] - exact[at]) / norm((at) => exact[at]);
  // Both are of float32 outputs and float32 exponents of at most 46: a few 1e-6 of the outputs' norm.
  expect(Math.abs(error.relativeL2.value - relative)).toBeLessThan(1e-5);
  const plain = truth([0, 0, 0, 0]);
  expect(norm((at) => data[at] - plain[at]) / norm((at) => plain[at])).toBeGreaterThan(10 * relative);
});

test("exact softmax with a number for each key head; null without the flag; one number for all", async () => {
  const decay = [0.5, 0, 2, 0.01];
  const exact = ["--features", "softmax", "--causal", ...SCALAR, "--json"];
  const given = await run([...exact, "--decay", decay.join(","), "-o", path("exact.npy")]);
  expect(JSON.parse(given.stdout).attention.decay).toEqual(decay);
  const data = read("exact.npy");
  const expected = truth(decay);
  // Outputs are at most 0.4 and rounded to float32 once.
  data.forEach((value, at) => expect(Math.abs(value - expected[at])).toBeLessThan(0.4 * 2 ** -24));
  expect(JSON.parse((await run(exact)).stdout).attention.decay).toBeNull();
  const one = JSON.parse((await run([...exact, "--decay", "0.5"])).stdout);
  expect(one.attention.decay).toEqual([0.5, 0.5, 0.5, 0.5]);
});

test("the report for people names it, and does not suggest near keys", async () => {
  const { stdout } = await run(["--causal", "--decay", "alibi", "-m", "2", ...SCALAR]);
  expect(stdout).toContain("causal · decay 0.00391 to 0.25");
  expect(stdout).not.toContain("--window");
});

const refused: [args: string[], words: string[]][] = [
  [["--decay", "alibi"], ["--causal"]],
  [["--causal", "--decay", "1,2"], ["2 numbers", "4 key heads"]],
  [["--causal", "--decay", "-1"], ["at least 0"]],
  [["--causal", "--decay", "alibbi"], ["did you mean alibi?"]],
  [["--causal", "--decay", "1", "--compat", "lucidrains"], ["--compat lucidrains", "leave --compat out"]],
  [["--causal", "--decay", "1", "--window", "8"], ["--window", "--decay", "--features softmax"]],
  [["--causal", "--decay", "1", "--features", "cosformer"], ["cosformer", "use another map"]],
  [["--causal", "--decay", "1", "--features", "auto"], ["near keys", "name a feature map"]],
  [["--causal", "--decay", "1", "--features", "taylor1"], ["--decay", "--features softmax"]],
];

test.each(refused)("%p is refused with the way out", async (args, words) => {
  const { code, stdout, stderr } = await run([...args, ...SCALAR]);
  expect([code, stdout]).toEqual([2, ""]);
  for (const part of words) expect(stderr).toContain(part);
});

test("shrinkage towards the decayed mean is fitted to the decayed answer", async () => {
  const args = ["--causal", "--decay", "0.2", "-m", "8", ...SCALAR, "--json"];
  const plain = JSON.parse((await run(args)).stdout);
  const { code, stdout, stderr } = await run([...args, "--shrink", "auto"]);
  expect([code, stderr]).toEqual([0, ""]);
  const { error } = JSON.parse(stdout);
  // It is fitted on rows of the same sequence by least squares: better than the mean alone, and than nothing.
  expect(error.relativeL2.value).toBeLessThan(plain.error.relativeL2.value);
  expect(error.skill).toBeGreaterThan(0);
});

test("ALiBi's slopes belong to query heads: shared key heads need numbers", async () => {
  const half = npyBytes([ROWS, HEADS * WIDTH / 2], wave);
  writeFileSync(path("half.npy"), half);
  const inputs = ["--q", path("q.npy"), "--k", path("half.npy"), "--v", path("half.npy")];
  const heads = ["--heads", String(HEADS), "--kv-heads", "2", "--causal", "--json", ...SCALAR];
  const slopes = await performer(["attend", ...inputs, ...heads, "--decay", "alibi"]);
  expect(slopes.code).toBe(2);
  expect(slopes.stderr).toContain("give 2 numbers instead");
  const numbers = await performer(["attend", ...inputs, ...heads, "--decay", "0.1,0.2"]);
  expect(JSON.parse(numbers.stdout).attention.decay).toEqual([0.1, 0.2]);
});

/** Any of the commands on the inputs of this file. */
const command = (name: string, args: readonly string[]) => {
  const inputs = ["--q", path("q.npy"), "--k", path("k.npy"), "--v", path("v.npy"), "--heads", String(HEADS)];
  return performer([name, ...inputs, "--causal", ...args, ...SCALAR]);
};

test("compare: errors are those of attend under the same decay; what cannot decay is left out, with the reason", async () => {
  const decay = ["--decay", "0.5,0.1,0.02,0"];
  const maps = ["--features", "hyperbolic,taylor1,cosformer", "-m", "32", "--redraws", "2"];
  const { code, stdout, stderr } = await command("compare", [...decay, ...maps, "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  const { rows, refused, attention, uniformBaseline } = JSON.parse(stdout);
  expect(attention.decay).toEqual([0.5, 0.1, 0.02, 0]);
  expect(refused.map(({ name }: { name: string }) => name).sort()).toEqual(["cosformer 16", "taylor1"]);
  for (const { reason } of refused) expect(reason).toContain("no decay");
  expect(rows).toHaveLength(1);
  const { error } = JSON.parse(
    (await run([...decay, "-m", "32", "--redraws", "1", ...SCALAR, "--json"].concat("--causal"))).stdout,
  );
  // Float64, but for the order of sums: rows come in tiles, and a state falls by λ per row whatever the cut.
  [error.relativeL2.value, ...error.redraws.samples].forEach((wanted: number, draw: number) => {
    expect(Math.abs(rows[0].draws.samples[draw] / wanted - 1)).toBeLessThan(1e-10);
  });
  expect(Math.abs(uniformBaseline / error.uniformBaseline - 1)).toBeLessThan(1e-12);
  const text = (await command("compare", ["--decay", "alibi", ...maps])).stdout;
  expect(text).toContain("causal · decay 0.00391 to 0.25");
  expect(text).not.toContain("--window");
});

test("tune: features are judged against the decayed truth, near keys are left out, and the line it prints repeats the decay", async () => {
  const args = ["--decay", "alibi", "--features", "hyperbolic,cosformer", "-m", "16,48", "--sample", "1000"];
  const { code, stdout, stderr } = await command("tune", [...args, "--error", "60%", "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  const { chosen, heldOut, use, decay, leftOut, tried } = JSON.parse(stdout);
  expect(decay).toEqual([0.25, 0.0625, 2 ** -6, 2 ** -8]);
  expect(leftOut.map(({ name }: { name: string }) => name)).toEqual(["near keys and far fields", "cosformer"]);
  for (const { attention } of tried) expect([attention.features, attention.nearFar]).toEqual(["hyperbolic", null]);
  expect(chosen.attention.decay).toBe("alibi");
  expect(use).toContain(" --decay alibi ");
  const used = JSON.parse((await performer([...use.split(" ").slice(1), "--check", "1000", "--json"])).stdout);
  expect(used.attention.decay).toEqual(decay);
  // λ of shrinkage is printed with three digits: half a thousandth of Ô − v̄, which is no longer than a few times O.
  expect(Math.abs(used.error.relativeL2.value - heldOut.relativeL2.value)).toBeLessThan(3e-3);
  const text = (await command("tune", [...args, "--error", "60%"])).stdout;
  expect(text).toContain("left out     near keys and far fields: they have no decay");
});

test("bench: decay is of causal sweeps, is reported, and two runs are compared under one decay only", async () => {
  const sweep = [
    "--heads",
    "2",
    "--head-dim",
    "8",
    "-L",
    "64",
    "-m",
    "16",
    "--seconds",
    "0.01",
    "--samples",
    "3",
    ...SCALAR,
  ];
  const bench = (args: readonly string[]) => performer(["bench", ...sweep, ...args]);
  const maps = ["--features", "hyperbolic,softmax,cosformer"];
  const { code, stdout, stderr } = await bench(["--causal", "--decay", "0.5,0", ...maps, "--json"]);
  expect([code, stderr]).toEqual([0, ""]);
  const { settings, results, refused } = JSON.parse(stdout);
  expect(settings.decay).toEqual([0.5, 0]);
  expect(results.map(({ features }: { features: string }) => features)).toEqual(["hyperbolic", "softmax"]);
  expect(refused).toEqual([{ name: "cosformer", reason: "it weighs distances by itself and has no decay" }]);
  writeFileSync(path("decayed.json"), stdout);
  const other = await bench(["--causal", "--decay", "0.5", "--compare", path("decayed.json")]);
  expect(other.code).toBe(2);
  expect(other.stderr).toContain("its decay is 0.5,0, that of this sweep 0.5,0.5; give the same --decay");
  const same = await bench(["--causal", "--decay", "0.5,0", "--compare", path("decayed.json"), "--regression", "100"]);
  expect([same.code, same.stderr]).toEqual([0, ""]);
  expect(same.stdout).toContain("decay 0 to 0.5");
});

test.each(["compare", "tune", "bench"])(
  "%s refuses decay of bidirectional attention, and of nothing that can decay",
  async (name) => {
    const inputs = name === "bench"
      ? []
      : ["--q", path("q.npy"), "--k", path("k.npy"), "--v", path("v.npy"), "--heads", "4"];
    const plain = await performer([name, ...inputs, "--decay", "alibi", ...SCALAR]);
    expect([plain.code, plain.stdout]).toEqual([2, ""]);
    expect(plain.stderr).toContain("--causal");
    if (name === "tune") return; // it says what it left out, and that nothing is cheaper than exact attention
    const none = await performer([
      name,
      ...inputs,
      "--causal",
      "--decay",
      "alibi",
      "--features",
      "cosformer",
      ...SCALAR,
    ]);
    expect([none.code, none.stdout]).toEqual([2, ""]);
    expect(none.stderr).toContain("cosformer");
  },
);
