/** Attention received and top keys against the dense matrix, built row by row from each system's published formulas. */
import { expect, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import { Received, TopKeys } from "../../src/model/attention_watch.ts";
import { RandomStream } from "../../src/random.ts";
import type { RuledPlan, RulesName } from "../../src/rules.ts";
import { floats, type Tile } from "../../src/tensor.ts";
import { describeBackends } from "../conformance/backends.ts";

const [HEADS, D, M, L] = [2, 8, 12, 75];
const ROWS = [0, 17, 74];

type Row = readonly number[];

/** Features of one row before any maximum: u and h. */
function exponents(x: Row, W: Float64Array): { u: number[]; h: number } {
  const u = Array.from(
    { length: M },
    (_, a) => x.reduce((sum, value, l) => sum + W[a * D + l] * value, 0) * D ** -0.25,
  );
  return { u, h: x.reduce((sum, value) => sum + value * value, 0) / Math.sqrt(D) / 2 };
}

/** A of one head, `L × L`, by the book. */
function dense(
  rules: RulesName,
  kernel: RuledPlan["kernel"],
  q: Row[],
  k: Row[],
  W: Float64Array,
  top: number,
): number[][] {
  const relu = (x: Row, scale: number, epsilon: number) =>
    exponents(x.map((value) => value * scale), W).u.map((u) => Math.max(0, u) + epsilon);
  const features = (x: Row, isKey: boolean): number[] => {
    if (kernel === "generalized") {
      return relu(x, rules === "lucidrains" ? 1 : D ** 0.25, rules === "lucidrains" ? 1e-3 : 0);
    }
    const { u, h } = exponents(x, W);
    if (rules === "fast-transformers") {
      return [1, -1].flatMap((sign) => u.map((value) => Math.exp(sign * value - h) / Math.sqrt(2 * M)));
    }
    if (rules === "exact") return u.map((value) => Math.exp(value - h));
    const epsilon = rules === "google" ? 1e-6 : 1e-4;
    const highest = isKey ? top : Math.max(...u);
    return u.map((value) => (Math.exp(value - h - highest) + epsilon) / Math.sqrt(M));
  };
  const keys = k.map((row) => features(row, true));
  return q.map((row) => {
    const p = features(row, false);
    const scores = keys.map((key) => key.reduce((sum, value, a) => sum + value * p[a], 0));
    const total = scores.reduce((sum, value) => sum + value, 0);
    const divisor = rules === "fast-transformers"
      ? total + 1e-6
      : rules === "molformer"
      ? Math.max(total, 1e-6)
      : rules === "google" && Math.abs(total) <= 1e-6
      ? total + 2e-6
      : total;
    return scores.map((score) => score / divisor);
  });
}

function drawn(seed: number, length: number, spread: number): Float64Array {
  return new RandomStream(seed, 9).normals(length).map((value) => Math.fround(spread * value));
}

const CASES: [RulesName, RuledPlan["kernel"]][] = [
  ["lucidrains", "softmax"],
  ["lucidrains-global", "softmax"],
  ["google", "softmax"],
  ["fast-transformers", "softmax"],
  ["exact", "softmax"],
  ["lucidrains", "generalized"],
  ["molformer", "generalized"],
];

describeBackends("attention without a matrix of it", (backend, slow) => {
  for (const [rules, kernel] of slow ? CASES.slice(0, 1) : CASES) {
    test(`${rules}, ${kernel}: received and top keys are those of the dense matrix`, async () => {
      const W = drawn(1, M * D, 1);
      const [q, k] = [drawn(2, L * HEADS * D, 0.7), drawn(3, L * HEADS * D, 0.7)];
      const row = (data: Float64Array, i: number, head: number) =>
        Array.from(data.subarray((i * HEADS + head) * D, (i * HEADS + head + 1) * D));
      const all = (data: Float64Array, head: number) => Array.from({ length: L }, (_, i) => row(data, i, head));
      const tops = [0, 1].map((head) => Math.max(...all(k, head).flatMap((x) => exponents(x, W).u)));
      const A = [0, 1].map((head) => {
        return dense(
          rules,
          kernel,
          all(q, head),
          all(k, head),
          W,
          rules === "lucidrains-global" ? Math.max(...tops) : tops[head],
        );
      });
      const plan: RuledPlan = {
        ...{ rules, kernel, activation: "relu", projection: W, heads: HEADS, headDim: D, valueDim: D },
        ...{ causal: false, tileRows: 32 },
      };
      const shape = { items: 1, layers: 1, heads: HEADS };
      const received = new Received(backend, { ...shape, rows: L });
      const top = new TopKeys(backend, shape, ROWS, 3);
      for (const { watcher } of [received, top]) await watch(backend, watcher, plan, q, k);
      const bound = backend.limits.precision === "f64" ? 1e-12 : 2e-5;
      for (let head = 0; head < HEADS; head++) {
        for (let j = 0; j < L; j++) {
          const wanted = A[head].reduce((sum, weights) => sum + weights[j], 0);
          expect(Math.abs(received.data[head * L + j] - wanted)).toBeLessThan(bound * L);
        }
        for (const [i, chosen] of ROWS.entries()) {
          const order = A[head][chosen].map((weight, key) => ({ key, weight })).sort((a, b) => b.weight - a.weight);
          const list = top.lists[head * ROWS.length + i];
          expect(list.map(({ key }) => key)).toEqual(order.slice(0, 3).map(({ key }) => key));
          list.forEach(({ weight }, at) => expect(Math.abs(weight - order[at].weight)).toBeLessThan(bound));
        }
      }
    });
  }
});

/** Shows a watcher what a layer would. */
async function watch(
  backend: Backend,
  watcher: Received["watcher"],
  plan: RuledPlan,
  q: Float64Array,
  k: Float64Array,
) {
  const tiles = function* (data: Float64Array): Generator<Tile> {
    for (let start = 0; start < L; start += plan.tileRows) {
      const rows = Math.min(plan.tileRows, L - start);
      const own = floats(backend.limits.precision, rows * HEADS * D);
      own.set(data.subarray(start * HEADS * D, (start + rows) * HEADS * D));
      yield { start, rows, cols: HEADS * D, data: own };
    }
  };
  await watcher.open(0, plan);
  for (const tile of tiles(k)) await watcher.survey(0, tile);
  for (const tile of tiles(k)) await watcher.keys(0, 0, tile, null);
  for (const tile of tiles(q)) await watcher.queries(0, 0, tile);
  await watcher.finish(0, 0);
  await watcher.close(0);
}
