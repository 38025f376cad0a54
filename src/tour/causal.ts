/** Step 8: causal attention as prefix sums, and decoding in constant memory. */
import { drawHeat } from "../plots/heat.ts";
import { RandomStream } from "../random.ts";
import { bytesText, count, figure } from "../words.ts";
import { breathe, type Head, Lab, mapOver, selfHead, shapeOf } from "./lab.ts";
import { say, table } from "./page.ts";
import type { TourStep, TourWorld } from "./step.ts";

const ROWS = { rows: 128, width: 16, sd: 0.5, seed: 1 };
const MAP = { features: "hyperbolic", projection: "orthogonal", seed: 8 } as const;
/** Keys that are changed, one at a time; rows count from 1. */
const CHANGED = [1, 32, 64, 96, 128];
/** A changed key is this many times as large, the other way: what would upset a maximum over all keys. */
const FACTOR = -50;

/** Decoding: one head of a usual size, and how many keys lie behind the token. */
const WIDTH = 64;
const FEATURES = 256;
const PASTS = [256, 2048, 16_384];
const REPEATS = 9;

/** Largest change of every row's output when one key is changed. */
async function changes(lab: Lab, head: Head, before: Float64Array, row: number): Promise<Float64Array> {
  const { rows, width } = head;
  const k = head.k.map((value, at) => Math.floor(at / width) === row ? FACTOR * value : value);
  const after = await lab.linear({ ...head, k }, mapOver(head, { ...MAP, count: 64 }), { causal: true });
  return Float64Array.from({ length: rows }, (_, i) => {
    let most = 0;
    for (let at = i * width; at < (i + 1) * width; at++) most = Math.max(most, Math.abs(after[at] - before[at]));
    return most;
  });
}

/** Milliseconds of the fastest of several runs. */
async function fastest(run: () => Promise<unknown>): Promise<number> {
  let least = Infinity;
  for (let i = 0; i < REPEATS; i++) {
    const before = performance.now();
    await run();
    least = Math.min(least, performance.now() - before);
  }
  return least;
}

/** Milliseconds of one more token's output after `past` keys: exact attention over all of them, and the state. */
async function decoding(world: TourWorld, lab: Lab, past: number, block: Float64Array): Promise<[number, number]> {
  const rows = block.length / WIDTH;
  const tile = (start: number) => ({ start, rows, cols: WIDTH, data: block });
  const one = { start: past, rows: 1, cols: WIDTH, data: block.subarray(0, WIDTH) };
  const shape = { ...shapeOf({ rows, width: WIDTH }, true) };
  const parameters = mapOver({ width: WIDTH }, { ...MAP, count: FEATURES });
  await using features = await lab.backend.prepare({ ...shape, parameters });
  for (let start = 0; start < past; start += rows) {
    await breathe(world);
    await features.absorb(tile(start), tile(start));
  }
  await using exact = await lab.backend.prepareExact({ ...shape, scale: 1 / Math.sqrt(WIDTH), queryRows: 1 });
  const softmax = await fastest(async () => {
    await exact.pose(one, [past]);
    for (let start = 0; start < past; start += rows) await exact.absorb(tile(start), tile(start));
    await exact.absorb(one, one);
    await exact.emit();
  });
  await breathe(world);
  return [softmax, await fastest(() => features.emit(one, { k: one, v: one }))];
}

export const causal: TourStep = {
  title: "Causal attention: prefix sums",
  text:
    `In a language model row i may look at rows up to i only. With a state that is easy: add row i's key, then ask row i's query.

    S_i = S_(i−1) + φ(y_i) v_iᵀ,    z_i = z_(i−1) + φ(y_i)

These are prefix sums: no L × L triangle, and row i is blind to what comes later because that is not in its sums. (Code that divides all \
features by a maximum over all rows, and adds an ε, leaks.) A decoder keeps S and z instead of all keys and values: memory and time per \
token do not grow. Below, one key of ${ROWS.rows} at a time is made ${-FACTOR} times as large and turned round.`,
  async run(world) {
    const head = selfHead(ROWS);
    await using lab = await Lab.open();
    const before = await lab.linear(head, mapOver(head, { ...MAP, count: 64 }), { causal: true });
    const found: Float64Array[] = [];
    for (const row of CHANGED) {
      await breathe(world);
      found.push(await changes(lab, head, before, row - 1));
    }
    const firstChanged = found.map((change) => change.findIndex((value) => value > 0) + 1);
    world.print(drawHeat({
      title: "Rows whose output changes with one key",
      length: ROWS.rows,
      lines: CHANGED.map((row, i) => ({
        label: `key ${row}`,
        text: `from row ${firstChanged[i]}`,
        cell(from, to) {
          const value = Math.max(...found[i].subarray(from, to));
          return { value, crossed: value > 0 };
        },
      })),
      across: ["row 1", "", `row ${ROWS.rows}`],
      crossedLabel: "changed",
    }, world.style));
    const leaks = found.reduce(
      (sum, change, i) => sum + change.subarray(0, CHANGED[i] - 1).filter((v) => v > 0).length,
      0,
    );
    const earlier = CHANGED.reduce((sum, row) => sum + row - 1, 0);
    say(world, `Of ${earlier} rows before a changed key, ${earlier - leaks} have the same output, bit for bit.`);

    const block = new RandomStream(8).normals(256 * WIDTH).map((value) => value / 2);
    const times: (readonly [past: number, softmax: number, features: number])[] = [];
    for (const past of PASTS) times.push([past, ...await decoding(world, lab, past, block)]);
    const state = 8 * FEATURES * (WIDTH + 2);
    table(
      world,
      ["one head of 64, after", "keys+values", "state", "softmax", "features"],
      times.map(([past, softmax, features]) => [
        `${count(past)} rows`,
        bytesText(4 * past * 2 * WIDTH),
        bytesText(state),
        `${figure(softmax)} ms`,
        `${figure(features)} ms`,
      ]),
    );
    const [first, last] = [times[0], times[times.length - 1]];
    say(
      world,
      `One token more after ${count(last[0])} rows instead of ${count(first[0])}: ${
        figure(last[1] / first[1])
      } times the time with ` +
        `softmax, ${figure(last[2] / first[2])} times with ${FEATURES} features.`,
    );
  },
  questions: [{
    ask: "Is it for training or for inference?",
    answer:
      "Both. Training gains length: time and memory of forward and backward pass grow with L instead of L². Decoding gains what the " +
      "table shows. Weights trained with softmax need fine-tuning first (step 10). This program runs forward passes only.",
  }],
  tryIt: ["x = randn(2048, 64, 1) * 0.5", "attend x --heads 4 --causal -m 256"],
};
