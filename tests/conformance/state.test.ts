/** The law of states, on every backend: a file may be cut anywhere, and runs that pass a state on do what one run does. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { Backend } from "../../src/backend.ts";
import { Inputs } from "../../src/inputs.ts";
import type { Report } from "../../src/report.ts";
import { attend } from "../../src/run.ts";
import { emptyState } from "../../src/state.ts";
import { buildStates } from "../../src/state_build.ts";
import { readState, writeState } from "../../src/state_file.ts";
import { emptyLike, mergeStates, type StoredState, storedState } from "../../src/stored_state.ts";
import type { Tile } from "../../src/tensor.ts";
import { memoryTensor } from "../unit/memory_tensor.ts";
import { describeBackends } from "./backends.ts";
import { expectNear } from "./dense.ts";
import { type Case, caseOf } from "./fitted_case.ts";
import { rowsOf } from "./harness.ts";

/** A state without keys, fitted as the case is. */
const begin = ({ attention, sizes, fit, problem }: Case): StoredState => {
  const state = emptyState(sizes.kvHeads, problem.parameters.features, sizes.valueDim);
  return storedState(attention, sizes, fit, { path: "nothing", rows: 0, state });
};

/** `attend` over rows `from … to−1`, going on from a state: outputs, the report and the state after it, all by way of a file. */
async function piece(backend: Backend, of: Case, [from, to]: readonly number[], before: StoredState, tileRows: number) {
  const { problem: { q, k, v, weights, heads, kvHeads, headDim, valueDim }, attention } = of;
  const source = (tile: Tile, heads: number, width: number) => memoryTensor(rowsOf(tile, from, to).data, heads, width);
  const mask = weights ? memoryTensor(weights.slice(from, to), 1, 1) : null;
  const out: number[] = [];
  const dir = mkdtempSync(join(tmpdir(), "performer-test-"));
  using _dir = { [Symbol.dispose]: () => rmSync(dir, { recursive: true }) };
  const path = join(dir, "state.safetensors");
  const report: Report = await attend({
    inputs: new Inputs(source(q, heads, headDim), source(k, kvHeads, headDim), source(v, kvHeads, valueDim), mask),
    attention,
    backend,
    refused: [],
    tileRows,
    check: 0,
    redraws: 0,
    encoding: null,
    peakBytes: () => 0,
    sink: {
      path: "memory",
      dtype: "f64",
      shape: [],
      write: async ({ data, rows, cols }) => void out.push(...data.subarray(0, rows * cols)),
      finish: async () => {},
      async [Symbol.asyncDispose]() {},
    },
    state: {
      before,
      keep: async (after) => {
        await writeState(path, after);
        return path;
      },
    },
  });
  return { out, report, after: await readState(path) };
}

/** Consecutive runs, each of which goes on where the one before was. */
async function causal(backend: Backend, of: Case, cuts: readonly number[], tileRows: number): Promise<number[]> {
  const ends = [0, ...cuts, of.problem.k.rows];
  let before = begin(of);
  const out: number[] = [];
  for (let i = 1; i < ends.length; i++) {
    const done = await piece(backend, of, [ends[i - 1], ends[i]], before, tileRows);
    out.push(...done.out);
    expect(done.report.state!.out!.rows).toBe(ends[i]);
    before = done.after;
  }
  return out;
}

/** States of all pieces first; then each piece's queries see its own keys and the merged states of all others. */
async function bidirectional(backend: Backend, of: Case, cuts: readonly number[], tileRows: number): Promise<number[]> {
  const ends = [0, ...cuts, of.problem.k.rows];
  const ranges = ends.slice(1).map((end, i) => [ends[i], end]);
  const states: StoredState[] = [];
  for (const range of ranges) states.push((await piece(backend, of, range, begin(of), tileRows)).after);
  return await answered(backend, of, ranges, states, tileRows);
}

async function answered(
  backend: Backend,
  of: Case,
  ranges: readonly (readonly number[])[],
  states: readonly StoredState[],
  tileRows: number,
): Promise<number[]> {
  const out: number[] = [];
  for (const [i, range] of ranges.entries()) {
    const others = await mergeStates([emptyLike(states[0]), ...states.filter((_, other) => other !== i)]);
    out.push(...(await piece(backend, of, range, others, tileRows)).out);
  }
  return out;
}

describeBackends("states", (backend, software) => {
  const { precision } = backend.limits;
  const slow = software || backend.name === "gpujs"; // gpu.js compiles every kernel of a new shape
  const rows = slow ? 19 : 70;
  const base = { keyRows: rows, headDim: 6, weighted: true };
  const cuts = slow ? [7] : [13, 13, 64];
  const tileRows = slow ? 19 : 16;

  /** Fitted ones are fitted to all rows, as one run would be. */
  const maps = slow
    ? ["hyperbolic", "saderf"]
    : ["hyperbolic", "trigonometric", "hyp-oprf", "saderf", "aderf+sderf", "elu", "relu"];

  test.each(maps)("%s, causal: a later file continues an earlier one", async (name) => {
    const of = caseOf(name, { ...base, causal: true });
    expectNear(await causal(backend, of, cuts, tileRows), of.reference, precision);
  });

  test.each(maps)("%s, bidirectional: queries see the keys of states as they see their own", async (name) => {
    const of = caseOf(name, base);
    expectNear(await bidirectional(backend, of, cuts, tileRows), of.reference, precision);
  });

  test("with decay, masked rows and a piece without rows", async () => {
    const of = caseOf("hyperbolic", { ...base, causal: true, decay: [0.6, 0.05] }, false, true);
    expectNear(await causal(backend, of, cuts, tileRows), of.reference, precision);
  });

  test("grouped queries", async () => {
    const sizes = { ...base, heads: 4, kvHeads: 2, matrices: 2 };
    for (const name of slow ? ["saderf"] : ["hyperbolic", "saderf"]) {
      const all = caseOf(name, sizes);
      expectNear(await bidirectional(backend, all, cuts, tileRows), all.reference, precision);
      const past = caseOf(name, { ...sizes, causal: true });
      expectNear(await causal(backend, past, cuts, tileRows), past.reference, precision);
    }
  });

  test("built of keys alone, block by block", async () => {
    const blockRows = slow ? 10 : 24;
    for (const [name, decay] of [["saderf", undefined], ["hyperbolic", [0.6, 0.05]]] as const) {
      const of = caseOf(name, { ...base, causal: decay !== undefined, decay }, true, decay !== undefined);
      const { problem: { q, k, v, weights, headDim, valueDim, kvHeads, heads }, attention, sizes } = of;
      const [keys, values] = [memoryTensor(k.data, kvHeads, headDim), memoryTensor(v.data, kvHeads, valueDim)];
      const inputs = new Inputs(memoryTensor(q.data, heads, headDim), keys, values, memoryTensor(weights!, 1, 1));
      const options = { inputs, attention, sizes, backend, like: begin(of), before: null, blockRows, tileRows };
      const states: StoredState[] = [];
      for await (const built of buildStates(options)) states.push(built);
      const starts = Array.from({ length: Math.ceil(rows / blockRows) }, (_, i) => i * blockRows);
      const ranges = starts.map((start) => [start, Math.min(rows, start + blockRows)]);
      expect(states.map((state) => state.rows)).toEqual(ranges.map(([from, to]) => to - from));
      if (!decay) expectNear(await answered(backend, of, ranges, states, tileRows), of.reference, precision);
      else { // the last block goes on from all before it
        const last = ranges.at(-1)!;
        const { out } = await piece(backend, of, last, await mergeStates(states.slice(0, -1)), tileRows);
        const cells = last[0] * heads;
        const { out: all, condition, ...reference } = of.reference;
        const tail = { out: all.subarray(cells * valueDim), condition: condition.subarray(cells), ...reference };
        expectNear(out, tail, precision);
      }
    }
  });

  if (backend.name !== "scalar") return;

  test("wherever it is cut, and in whatever tiles", async () => {
    const past = caseOf("hyp-aderf", { ...base, causal: true });
    const faded = caseOf("positive", { ...base, causal: true, decay: [2, 0.01] }, false, true);
    const all = caseOf("hyperbolic", base);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(rows), { maxLength: 4 }),
        fc.integer({ min: 1, max: 80 }),
        async (some, tile) => {
          const cuts = some.toSorted((a, b) => a - b);
          for (const  of of[past, faded]) expectNear(await causal(backend, of, cuts, tile), of.reference, precision);
          expectNear(await bidirectional(backend, all, cuts, tile), all.reference, precision);
        },
      ),
      { numRuns: 15 },
    );
  });

  test("the report says what went in and came out, and why there is no error", async () => {
    const of = caseOf("hyperbolic", { ...base, causal: true });
    const first = await piece(backend, of, [0, 20], begin(of), 16);
    const second = await piece(backend, of, [20, 50], first.after, 16);
    const { in: before, out } = second.report.state!;
    const keys = (to: number) => of.problem.weights!.slice(0, to).filter((weight) => weight > 0).length;
    expect(before).toEqual({ path: first.after.path, rows: 20, keys: keys(20) });
    expect([out!.rows, out!.keys]).toEqual([50, keys(50)]);
    expect(second.report.error).toBe(null);
    const warned = ({ report }: { report: Report }) => report.warnings.some(({ code }) => code === "keys-in-state");
    expect([warned(first), warned(second)]).toEqual([false, true]);
  });
});
