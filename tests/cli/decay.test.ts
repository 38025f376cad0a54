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
