/** How `tune` judges: on which rows, what it answers when nothing will do, and how that is said. */
import { beforeAll, describe, expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import type { Backend } from "../../src/backend.ts";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { TUNE_EXPORTERS } from "../../src/exporters/tune.ts";
import { Inputs } from "../../src/inputs.ts";
import type { ErrorSummary } from "../../src/metrics.ts";
import { RandomStream } from "../../src/random.ts";
import { takesTops } from "../../src/trial.ts";
import { stateBytes, type Tried, tune, type Tuned, type TuneOptions, type TuneReport } from "../../src/tune.ts";
import { memoryTensor } from "./memory_tensor.ts";

const ROWS = 300, D = 6;
const base: Attention = {
  features: "hyperbolic",
  numFeatures: 16,
  projection: "orthogonal",
  norms: "chi",
  seed: 0,
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
};

/** Rows that follow each other closely, so that near keys matter. */
function rowsOfWalk(spread: number): Float64Array {
  const random = new RandomStream(3);
  const data = new Float64Array(ROWS * D);
  for (let at = 0; at < data.length; at++) data[at] = 0.9 * (data[at - D] ?? 0) + 0.44 * spread * random.normal();
  return data;
}

/** A backend that notes which rows exact attention is asked for. */
async function watched(): Promise<{ backend: Backend; posed: number[][] }> {
  const { backend } = await openFirst(parseBackendList("scalar"));
  const posed: number[][] = [];
  const prepareExact: Backend["prepareExact"] = async (plan) => {
    const session = await backend.prepareExact(plan);
    const pose = session.pose.bind(session);
    session.pose = (q, rows) => {
      posed.push(Array.from(rows));
      return pose(q, rows);
    };
    return session;
  };
  return {
    backend: new Proxy(backend, { get: (of, key) => key === "prepareExact" ? prepareExact : Reflect.get(of, key) }),
    posed,
  };
}

async function tuned(changes: Partial<TuneOptions> = {}, spread = 2): Promise<{ found: Tuned; posed: number[][] }> {
  const { backend, posed } = await watched();
  await using _backend = backend;
  const rows = memoryTensor(rowsOfWalk(spread), 1, D);
  const options = { target: 0.2, prefer: "time", sampled: 40, maps: ["hyperbolic"], numFeatures: [16] } as const;
  const found = await tune({ inputs: new Inputs(rows, rows, rows, null), backend, base, ...options, ...changes });
  return { found, posed };
}

test("the choice is checked on rows that did not make it, spread over all of the input", async () => {
  for (const causal of [false, true]) {
    const { found, posed } = await tuned({ base: { ...base, causal } });
    expect(posed.length).toBe(2);
    const [judged, fresh] = posed;
    expect([judged.length, fresh.length]).toEqual([40, 40]);
    expect(fresh.filter((row) => judged.includes(row))).toEqual([]);
    const last = fresh.filter((row) => row >= ROWS / 2).length;
    expect(last).toBeGreaterThan(8); // 20 on average, standard deviation about 3
    expect(last).toBeLessThan(32);
    expect(found.chosen!.meets).toBeTrue();
    expect(found.heldOut!.relativeL2.value).toBeLessThanOrEqual(0.2);
    expect(found.heldOut!.rowsChecked).toBe(40);
    // What it is judged by in the end is both samples, as rows of any number: the interval has width, and ends within the target.
    expect(found.chosen!.error.rowsChecked).toBe(80);
    expect(found.chosen!.error.relativeL2.high).toBeLessThanOrEqual(0.2);
    expect(found.chosen!.error.relativeL2.high).toBeGreaterThan(found.chosen!.error.relativeL2.value);
    expect(found.tried).toContain(found.chosen!);
  }
});

test("where all rows were judged they are checked once more, and nothing is read for exact answers again", async () => {
  const { found, posed } = await tuned({ sampled: 1000 });
  expect(posed).toEqual([Array.from({ length: ROWS }, (_, i) => i)]);
  expect(found.heldOut!.rowsChecked).toBe(ROWS);
  expect(found.heldOut!.relativeL2.value).toBeLessThanOrEqual(0.2);
});

test("what is chosen is the cheapest that meets the error; of the others none beats those marked in time and error", async () => {
  const { found } = await tuned({ prefer: "memory", sampled: 1000, target: 0.35 });
  const good = found.tried.filter(({ meets }) => meets);
  expect(good.length).toBeGreaterThan(1);
  expect(found.chosen!.stateBytes).toBe(Math.min(...good.map(({ stateBytes }) => stateBytes)));
  for (const one of found.tried) {
    const value = (tried: Tried) => tried.error.relativeL2.value;
    expect(one.meets).toBe(one.error.relativeL2.high <= 0.35);
    const beaten = found.tried.some((other) => other.seconds < one.seconds && value(other) <= value(one));
    expect(one.pareto).toBe(!beaten);
    expect(one.rows).toBe(ROWS);
  }
  expect(found.tried.map(({ seconds }) => seconds)).toEqual(
    found.tried.map((one) => one.seconds).sort((a, b) => a - b),
  );
});

test("nothing will do: nothing is chosen; an input that answers 0 is refused", async () => {
  const { found } = await tuned({ target: 1e-9, sampled: 1000 });
  expect([found.chosen, found.heldOut]).toEqual([null, null]);
  expect(found.uniformBaseline).toBeGreaterThan(0.1);
  await expect(tuned({}, 0)).rejects.toThrow("exact attention answers every sampled row with 0");
});

test("an aborted signal ends it", async () => {
  const abort = new AbortController();
  const progress = () => abort.abort(new Error("interrupted"));
  await expect(tuned({ signal: abort.signal, progress })).rejects.toThrow("interrupted");
});

test("bytes of state: what sessions keep, in float64", async () => {
  const sizes = { queryRows: 100, keyRows: 100, heads: 4, kvHeads: 2, headDim: 3, valueDim: 5 };
  const near = { window: 9, heavy: 0, clusters: 0, top: 0 } as const;
  const bytes = (nearFar: Attention["nearFar"]) => stateBytes({ ...base, nearFar }, sizes);
  expect(bytes({ ...near, far: "none" })).toBe(0);
  expect(bytes({ ...near, far: "taylor1" })).toBe(2 * 8 * (3 + 1) * (5 + 1)); // n, Σy, Σv, Σy vᵀ
  expect(bytes({ ...near, far: "taylor2" })).toBe(2 * 8 * (4 * 6 + 6 * 6)); // and of 6 products of coordinates
  expect(bytes({ ...near, far: "none", heavy: 999 })).toBe(bytes({ ...near, far: "none", heavy: 100 }));
  expect(bytes({ ...near, far: "clusters", clusters: 999 })).toBe(bytes({ ...near, far: "clusters", clusters: 100 }));
  expect(bytes({ ...near, far: "clusters", clusters: 8, top: 2 })).toBe(
    bytes({ ...near, far: "clusters", clusters: 8 }) + 2 * 100 * (3 + 5) * 4, // all keys, for those of top clusters
  );
  expect(bytes(null)).toBe(2 * 16 * (5 + 2) * 8);
  const { backend } = await openFirst(parseBackendList("scalar"));
  await using _backend = backend;
  expect(takesTops(backend, sizes, false)).toBeTrue();
});

describe("reports", () => {
  const error = (value: number, rowsChecked = 384): ErrorSummary => {
    return {
      rowsChecked,
      relativeL2: { value, low: value / 2, high: value * 2 },
      uniformBaseline: 0.9,
      skill: 0.5,
      perHead: [],
    };
  };
  const one = (seconds: number, value: number, window: number): Tried => ({
    attention: { ...base, features: "taylor1", nearFar: { window, heavy: 0, far: "taylor1", clusters: 0, top: 0 } },
    error: error(value),
    seconds,
    flopsPerRow: 1e6,
    stateBytes: 2e3,
    rows: 1000,
    pareto: true,
    meets: value <= 0.05,
  });
  const [fast, slow] = [one(2, 0.04, 8), one(3, 0.02, 16)];
  const report = (changes: Partial<TuneReport> = {}): TuneReport => ({
    schema: "performer-tune/1",
    command: "tune",
    backend: { name: "wasm", device: "two threads", refused: [] },
    input: { path: "a.npy", rows: 1000, keyRows: 1000, heads: 1, headDim: D },
    causal: false,
    decay: null,
    target: 0.05,
    prefer: "time",
    tried: [fast, slow],
    chosen: fast,
    heldOut: error(0.041),
    exact: { seconds: 10, flopsPerRow: 2e6 },
    uniformBaseline: 0.9,
    leftOut: [],
    use: "performer attend a.npy --window 8 --far taylor1",
    seconds: { total: 5 },
    ...changes,
  });
  const options = { color: false, verbose: false };
  let text: (changes?: Partial<TuneReport>) => string;
  beforeAll(async () => {
    const exporter = await TUNE_EXPORTERS.text();
    text = (changes) => exporter(report(changes), options);
  });

  test("a setting that is good enough: verdict, held-out error, and the command line", () => {
    expect(text()).toContain(
      "verdict      window 8, taylor1 reaches 5 % in 2.00 s, exact attention takes about 10.0 s\n",
    );
    expect(text()).toContain(
      "held out     relative L2 0.041 [0.0205, 0.082] on 384 fresh rows · uniform baseline 0.9 · skill 0.500\n",
    );
    expect(text()).toContain("use          performer attend a.npy --window 8 --far taylor1\n");
    expect(text({ heldOut: error(0.041, 1000) })).toContain("on all rows");
    expect(text({ prefer: "memory" })).toContain("reaches 5 % with 2.00 kB of state");
  });

  test("several heads: the error of each, and which of them exceed what all together meet", () => {
    const heads = (...errors: number[]): ErrorSummary => ({
      ...error(0.041),
      perHead: errors.map((relativeL2) => ({ relativeL2, uniformBaseline: 0.9, skill: 0.9 })),
    });
    expect(text({ heldOut: heads(0.03, 0.052, 0.05, 0.06) })).toContain(
      "per head     0.03, 0.052, 0.05, 0.06: above 5 % in heads 1, 3\n",
    );
    expect(text({ heldOut: heads(0.03, 0.06) })).toContain("above 5 % in head 1\n");
    expect(text({ heldOut: heads(0.03, 0.04) })).toContain("per head     0.03, 0.04\n");
    expect(text({ heldOut: heads(0.041) })).not.toContain("per head");
  });

  test("what ran on a slice only is not called the most accurate", () => {
    const slice = { ...slow, error: error(0.01), rows: 100 };
    const words = text({ chosen: null, heldOut: null, use: null, tried: [slice, { ...fast, error: error(0.07) }] });
    expect(words).toContain("the most accurate was window 8, taylor1 at 0.07");
  });

  test("exact attention is faster: that is said plainly, with the length from which it is not", () => {
    // Linear cost 2 s at 1,000 rows, quadratic cost 0.5 s: equal at 1000 · 2 / 0.5.
    const words = text({ exact: { seconds: 0.5, flopsPerRow: 2e6 } });
    expect(words).toContain("exact attention is cheaper at this length: about 0.50 s against 2.00 s");
    expect(words).toContain("window 8, taylor1 overtakes it at about 4,000 rows");
    expect(words).toContain("or           --features softmax instead");
    expect(text({ prefer: "memory", exact: { seconds: 0.5, flopsPerRow: 2e6 } })).not.toContain(
      "cheaper at this length",
    );
  });

  test("nothing is good enough: that is said, with what came nearest", () => {
    const none = { chosen: null, heldOut: null, use: null };
    expect(text({ ...none, tried: [fast, { ...slow, error: error(NaN) }] })).toContain(
      "verdict      none of the 2 settings tried reaches 5 % on this data; the most accurate was window 8, taylor1 at 0.04",
    );
    expect(text(none)).toContain("use          --features softmax: exact attention takes about 10.0 s here");
    expect(text({ ...none, tried: [] })).toContain(
      "nothing takes less arithmetic than exact attention over 1,000 keys",
    );
  });

  test("colours mark the chosen setting only on terminals", async () => {
    const exporter = await TUNE_EXPORTERS.text();
    expect(text()).not.toContain("\x1b[");
    expect(exporter(report(), { color: true, verbose: false })).toContain("\x1b[32mwindow 8, taylor1 ");
  });
});
