/**
 * performer-pytorch 1.1.4's own outputs in float64 (`out_f64.npy` of tests/golden/fast_attention): ε, key maxima, δ of causal
 * denominators, generalised kernels and no_projection, on every backend.
 */
import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import type { Backend } from "../../src/backend.ts";
import type { Activation } from "../../src/feature_map.ts";
import { prepareRuled, type RuledPlan, type RulesName } from "../../src/rules.ts";
import { floats, type Tile } from "../../src/tensor.ts";
import { describeBackends } from "../conformance/backends.ts";
import { asTile, CASES, readArray } from "./arrays.ts";

interface Case {
  readonly plan: Omit<RuledPlan, "tileRows" | "rules">;
  readonly q: Tile;
  readonly k: Tile;
  readonly v: Tile;
  readonly out: Float64Array;
}

function load(name: string): Case {
  const { module } = JSON.parse(readFileSync(new URL(`${name}/config.json`, CASES), "utf8"));
  const [q, k, v, W, out] = ["q", "k", "v", "projection_matrix", "out_f64"].map((file) => readArray(name, file));
  const [b, h, , headDim] = q.shape;
  return {
    plan: {
      kernel: module.no_projection ? "no-projection" : module.generalized_attention ? "generalized" : "softmax",
      activation: (module.kernel_fn ?? "relu") as Activation,
      projection: W.data,
      heads: b * h, // key maxima are taken per batch item and head
      headDim,
      valueDim: v.shape[3],
      causal: module.causal === true,
    },
    q: asTile(q),
    k: asTile(k),
    v: asTile(v),
    out: asTile(out).data as Float64Array,
  };
}

/** Rows `from … to − 1` in the backend's precision. */
function piece(backend: Backend, { cols, data }: Tile, from: number, to: number): Tile {
  const rows = floats(backend.limits.precision, (to - from) * cols);
  rows.set(data.subarray(from * cols, to * cols));
  return { start: from, rows: to - from, cols, data: rows };
}

async function outputs(backend: Backend, { plan, q, k, v }: Case, rules: RulesName, tileRows: number) {
  await using session = await prepareRuled(backend, { ...plan, rules, tileRows });
  const result = new Float64Array(q.rows * plan.heads * plan.valueDim);
  const cuts = (rows: number) =>
    Array.from({ length: Math.ceil(rows / tileRows) }, (_, i) => [i * tileRows, Math.min(rows, (i + 1) * tileRows)]);
  if (session.surveys) { for (const [a, b] of cuts(k.rows)) await session.survey(piece(backend, k, a, b)); }
  if (!plan.causal) {
    for (const [a, b] of cuts(k.rows)) await session.absorb(piece(backend, k, a, b), piece(backend, v, a, b));
  }
  for (const [a, b] of cuts(q.rows)) {
    const own = plan.causal ? { k: piece(backend, k, a, b), v: piece(backend, v, a, b) } : null;
    const out = await session.emit(piece(backend, q, a, b), own);
    result.set(out.data, a * out.cols);
    if (own) await session.absorb(own.k, own.v);
  }
  return result;
}

function relative(found: Float64Array, wanted: Float64Array): number {
  let [error, all] = [0, 0];
  for (let i = 0; i < wanted.length; i++) {
    error += (found[i] - wanted[i]) ** 2;
    all += wanted[i] ** 2;
  }
  return Math.sqrt(error / all);
}

const NAMES = readdirSync(CASES);

describeBackends("performer-pytorch FastAttention", (backend, slow) => {
  const bound = backend.limits.precision === "f64" ? 1e-9 : 2e-5; // of the issue; float32 itself is within 1.2e-6
  for (const name of slow ? ["softmax_L1", "noproj_causal_d16"] : NAMES) {
    test(`${name}: its output, whatever the tile`, async () => {
      const golden = load(name);
      for (const tileRows of slow ? [64] : [17, 1024]) {
        expect(relative(await outputs(backend, golden, "lucidrains", tileRows), golden.out)).toBeLessThan(bound);
      }
    });
  }

  test("one head and batch item at a time, lucidrains-global is lucidrains; together it is not", async () => {
    const golden = load(slow ? "softmax_L1" : "softmax_d16_m32");
    const one = { ...golden, plan: { ...golden.plan, heads: 1 } };
    for (const tensor of ["q", "k", "v"] as const) {
      const cols = golden[tensor].cols / golden.plan.heads;
      const { rows, data } = golden[tensor];
      const picked = new Float64Array(rows * cols);
      for (let i = 0; i < rows; i++) picked.set(data.subarray(i * golden[tensor].cols, i * golden[tensor].cols + cols), i * cols);
      one[tensor] = { start: 0, rows, cols, data: picked };
    }
    const alone = await outputs(backend, one, "lucidrains", 64);
    expect(relative(await outputs(backend, one, "lucidrains-global", 64), alone)).toBeLessThan(1e-12);
    if (slow) return;
    const all = await outputs(backend, golden, "lucidrains", 64);
    expect(relative(await outputs(backend, golden, "lucidrains-global", 64), all)).toBeGreaterThan(1e-4);
  });

  if (slow) return;

  test("lucidrains-global: batch items one after the other are the batch at once", async () => {
    const golden = load("softmax_d16_m32");
    const together = await outputs(backend, golden, "lucidrains-global", 64);
    const [items, { rows }] = [2, golden.q];
    const [heads, width] = [golden.plan.heads / items, golden.plan.headDim];
    const item = ({ cols, data }: Tile, i: number): Tile => {
      const own = cols / items;
      const picked = floats(backend.limits.precision, rows * own);
      for (let row = 0; row < rows; row++) {
        picked.set(data.subarray(row * cols + i * own, row * cols + (i + 1) * own), row * own);
      }
      return { start: 0, rows, cols: own, data: picked };
    };
    const plan = { ...golden.plan, heads, rules: "lucidrains-global", tileRows: 64 } as const;
    await using session = await prepareRuled(backend, plan);
    for (let i = 0; i < items; i++) await session.survey(item(golden.k, i));
    for (let i = 0; i < items; i++) {
      await session.absorb(item(golden.k, i), item(golden.v, i));
      const out = await session.emit(item(golden.q, i));
      const wanted = item({ start: 0, rows, cols: items * heads * width, data: together }, i);
      expect(relative(Float64Array.from(out.data), Float64Array.from(wanted.data))).toBeLessThan(bound);
      await session.reset();
    }
  });

  test("lucidrains leaks the future, lucidrains-causal and exact are blind to it", async () => {
    const golden = load("causal_d64_m256");
    const { heads, headDim } = golden.plan;
    const last = (golden.k.rows - 1) * heads * headDim;
    const later = { ...golden, k: { ...golden.k, data: golden.k.data.map((x, i) => i < last ? x : 3 * x) } };
    const seen = last / headDim * golden.plan.valueDim;
    const change = async (rules: RulesName) => {
      const [before, after] = [await outputs(backend, golden, rules, 64), await outputs(backend, later, rules, 64)];
      return relative(after.subarray(0, seen), before.subarray(0, seen));
    };
    expect(await change("lucidrains")).toBeGreaterThan(1e-3);
    const blind = backend.limits.precision === "f64" ? 1e-12 : 2e-5;
    expect(await change("lucidrains-causal")).toBeLessThan(blind);
    expect(await change("exact")).toBeLessThan(blind);
  });

  test("the bound sees each wrong rule: no ε, ε of another system, a maximum over heads", async () => {
    const golden = load("softmax_d32_m100_oddL");
    for (const wrong of ["exact", "google", "lucidrains-global", "fast-transformers"] as const) {
      expect(relative(await outputs(backend, golden, wrong, 64), golden.out)).toBeGreaterThan(100 * bound);
    }
  });
});
