/** The law of checkpoints, on every backend: a run that goes on from any of them gives the bits of the one that made them. */
import { expect, test } from "bun:test";
import type { Attention, NearFarSettings } from "../../src/attention.ts";
import type { Backend } from "../../src/backend.ts";
import { Inputs } from "../../src/inputs.ts";
import { pack, unpack } from "../../src/packed.ts";
import type { Report } from "../../src/report.ts";
import { attend } from "../../src/run.ts";
import type { AttendOptions } from "../../src/run_base.ts";
import type { Checkpoint } from "../../src/run_journal.ts";
import type { StoredState } from "../../src/stored_state.ts";
import { PLAIN } from "../plain_attention.ts";
import { memoryTensor } from "../unit/memory_tensor.ts";
import { describeBackends } from "./backends.ts";
import { makeProblem } from "./harness.ts";

const near = (nearFar: Partial<NearFarSettings>): Partial<Attention> => ({
  features: nearFar.far,
  nearFar: { far: "none", window: 0, heavy: 0, clusters: 0, top: 0, ...nearFar },
});

/** Every way in which a run has something to keep. */
const KINDS: Readonly<Record<string, Partial<Attention>>> = {
  bidirectional: {},
  causal: { causal: true },
  "causal with decay": { causal: true, decay: [0.05, 0.2] },
  "balanced and moved keys": { features: "hyp-sderf", fitting: { params: { kind: "file" }, centre: "on" } },
  "a dense transform": {
    features: "hyp-aderf",
    causal: true,
    fitting: { params: { kind: "prefix", rows: 40 }, centre: "auto" },
  },
  "a signed map": { features: "trigonometric", numFeatures: 12 },
  "a map without projection": { features: "elu", causal: true },
  angular: { features: "cosformer" },
  "near keys alone": near({ far: "none", window: 9 }),
  "near keys and taylor1": near({ far: "taylor1", window: 80, heavy: 5 }),
  "near keys and taylor2, causal": { ...near({ far: "taylor2", window: 70, heavy: 3 }), causal: true },
  "far field alone": near({ far: "hermite2" }),
  clusters: near({ far: "clusters", clusters: 6, window: 5 }),
  "clusters, causal": { ...near({ far: "clusters", clusters: 4, heavy: 2 }), causal: true },
  "exact softmax": { features: "softmax", causal: true },
  "no attention": { features: "none" },
};

/** Of those, the ones that are also tried with shrinkage. */
const SHRUNK = ["bidirectional", "causal", "near keys and taylor1"];

/** Exact softmax and no attention, which have no state between two tiles. */
const keepsNothing = ({ features, nearFar }: Attention) => !nearFar && ["softmax", "none"].includes(features);

interface Ran {
  readonly outputs: Float64Array;
  readonly report: Report;
  readonly checkpoints: readonly Checkpoint[];
}

/** Rows are equal where their bits are. */
const bits = ({ buffer }: Float64Array) => Buffer.from(buffer).toString("base64");

describeBackends("checkpoints", (backend: Backend, software) => {
  const slow = software || backend.name === "gpujs";
  const rows = slow ? 100 : 290;
  const problem = makeProblem({
    map: "positive",
    queryRows: rows,
    keyRows: rows,
    heads: 4,
    kvHeads: 2,
    headDim: 6,
    valueDim: 5,
    weighted: true,
  });

  /** A run that keeps every checkpoint, from `last` on; outputs before it come from `before`. */
  async function run(
    attention: Attention,
    lambda: number[] | null,
    last: Checkpoint | null,
    before?: Float64Array,
    state?: AttendOptions["state"],
  ): Promise<Ran> {
    const { q, k, v, weights, heads, kvHeads, headDim, valueDim } = problem;
    const cols = heads * valueDim;
    const outputs = new Float64Array(q.rows * cols);
    if (last && before) outputs.set(before.subarray(0, last.rows * cols));
    const checkpoints: Checkpoint[] = [];
    const own = keepsNothing(attention) && attention.features === "none";
    const value = memoryTensor(own ? q.data : v.data, own ? heads : kvHeads, own ? headDim : valueDim);
    const options: AttendOptions = {
      inputs: new Inputs(
        memoryTensor(q.data, heads, headDim),
        memoryTensor(own ? q.data : k.data, own ? heads : kvHeads, headDim),
        value,
        own || !weights ? null : memoryTensor(weights, 1, 1),
      ),
      attention,
      backend,
      refused: [],
      tileRows: 32,
      lambda,
      state,
      check: 24,
      redraws: 0,
      encoding: null,
      peakBytes: () => 0,
      sink: {
        path: "memory",
        dtype: "f64",
        shape: [],
        write: async (tile) => {
          expect(tile.start).toBeGreaterThanOrEqual(last?.rows ?? 0);
          outputs.set(tile.data.subarray(0, Math.min(tile.rows * cols, outputs.length)), tile.start * cols);
        },
        finish: async () => {},
        async [Symbol.asyncDispose]() {},
      },
      journal: {
        last,
        due: true,
        save: async (checkpoint) => void checkpoints.push(unpack(pack(checkpoint), "it") as Checkpoint),
      },
    };
    return { report: await attend(options), outputs, checkpoints };
  }

  test("a run that goes on from a state and leaves one leaves the same", async () => {
    const attention = { ...PLAIN, causal: true };
    const left: StoredState[] = [];
    const keep = async (after: StoredState) => {
      left.push(after);
      return "here";
    };
    await run(attention, null, null, undefined, { keep });
    const state = { before: left[0], keep };
    const whole = await run(attention, null, null, undefined, state);
    for (const last of whole.checkpoints) {
      const rest = await run(attention, null, last, whole.outputs, state);
      expect(bits(rest.outputs)).toBe(bits(whole.outputs));
      expect(rest.report.state).toEqual(whole.report.state);
      expect(left.at(-1)!.state).toEqual(left[1].state);
    }
    expect(left.length).toBe(2 + whole.checkpoints.length);
    expect(left[1].state.keys).toBe(2 * left[0].state.keys);
  }, 60_000);

  const cases = Object.entries(KINDS).flatMap(([name, settings]) => {
    const attention = { ...PLAIN, ...settings };
    const shrinks = SHRUNK.includes(name) ? [false, true] : [false];
    if (attention.nearFar && !backend.prepareNearFar) return [];
    return shrinks.map((shrunk) => [shrunk ? `${name}, shrunk` : name, attention, shrunk] as const);
  });
  test.each(cases)("%s", async (_, attention, shrunk) => {
    const lambda = shrunk ? [0.5, 0.7, 0.9, 1] : null;
    const whole = await run(attention, lambda, null);
    const tiles = Math.ceil(rows / (attention.nearFar ? 64 : 32));
    // One pass of keys and one of queries, or one of both; where there is a state, one more without it at the end.
    const passes = attention.causal || keepsNothing(attention) ? 1 : 2;
    expect(whole.checkpoints.length).toBe(passes * tiles + (keepsNothing(attention) ? 0 : 1));
    const some = whole.checkpoints.filter((_, i) => !slow || [1, passes * tiles - 2].includes(i));
    for (const last of some) {
      const rest = await run(attention, lambda, last, whole.outputs);
      expect(bits(rest.outputs)).toBe(bits(whole.outputs));
      expect(rest.report.resumed).toEqual({ keyRows: last.keyRows, rows: last.rows });
      expect([rest.report.error, rest.report.counts]).toEqual([whole.report.error, whole.report.counts]);
      expect(rest.report.attention).toEqual(whole.report.attention);
    }
  }, 60_000);

  test("tiles of other sizes are refused", async () => {
    const { checkpoints: [last] } = await run(PLAIN, null, null);
    const refused = await run(PLAIN, null, { ...last, tileRows: 16 }).then(
      () => "",
      (error) => (error as Error).message,
    );
    expect(refused.includes("tiles had 16 rows and have 32 now")).toBe(true);
  });
});
