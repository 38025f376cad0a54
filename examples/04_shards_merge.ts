/** Keys in pieces, on as many machines as there are: states of pieces merge to the state of all, in any order. */
import { newState, normal, relativeError, type SavedState } from "../mod.ts";

const [rows, width] = [3000, 32];
const [q, k, v] = [1, 2, 3].map((seed) => normal([rows, width], { seed, sd: 0.5 }));
const settings = { width, numFeatures: 128, seed: 7 }; // the seed makes every piece use the same projection

/** What a machine with rows `from … to − 1` sends back: plain data, the same size for any number of rows. */
async function shard(from: number, to: number): Promise<SavedState> {
  const state = await newState(settings);
  await state.absorb(await k.view({ rows: [from, to] }), await v.view({ rows: [from, to] }));
  return await state.save();
}

const pieces = await Promise.all([shard(2000, 3000), shard(0, 500), shard(500, 2000)]);
const merged = await newState(settings);
for (const piece of pieces) await merged.merge(structuredClone(piece)); // as it comes over a wire

const whole = await newState(settings);
await whole.absorb(k, v);
console.log(`rows in the pieces  ${pieces.map((piece) => piece.rows).join(", ")}`);
console.log(`rows after merging  ${merged.rows}`);
console.log(`merged against whole: ${relativeError(await merged.emit(q), await whole.emit(q))}`);
