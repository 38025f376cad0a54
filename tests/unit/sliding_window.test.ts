/** Windows of the last N, of anything that merges: in order, each item a few times, and none of what is gone. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { SlidingWindow } from "../../src/sliding_window.ts";
import { mergePair, type StoredState } from "../../src/stored_state.ts";
import { attentionWith, rowsWith, sizesWith, stateWith } from "../stored_states.ts";

test("every window is the merge of its items in their order, by at most three merges per item", () => {
  fc.assert(fc.property(fc.nat(60), fc.integer({ min: 1, max: 12 }), (items, length) => {
    let merges = 0;
    const window = new SlidingWindow<string>(length, (a, b) => {
      merges++;
      return a + b;
    });
    const letters = Array.from({ length: items }, (_, i) => String.fromCharCode(0x4e00 + i));
    const seen = letters.map((letter) => window.push(letter));
    expect(seen).toEqual(letters.map((_, i) => i + 1 < length ? null : letters.slice(i + 1 - length, i + 1).join("")));
    expect(merges).toBeLessThanOrEqual(3 * items);
  }));
  expect(() => new SlidingWindow(0, (a) => a)).toThrow(RangeError);
});

/** Blocks of 3 rows; the keys of one of them are huge. */
async function blocksWith(huge: number, decay: readonly number[] | null): Promise<StoredState[]> {
  const sizes = sizesWith(30);
  const rows = rowsWith(sizes);
  const { data } = rows.k;
  const cols = rows.k.cols;
  // Along the features of trigonometric maps the weight of a key grows with e^{‖k‖²/2}: these are e^80 times the others.
  for (let at = 3 * huge * cols; at < 3 * (huge + 1) * cols; at++) data[at] *= 8;
  const attention = attentionWith({ features: "trigonometric", decay });
  return await Promise.all(Array.from({ length: 10 }, (_, i) => {
    return stateWith(attention, sizes, rows, { from: 3 * i, to: 3 * i + 3 });
  }));
}

test.each([["without decay", null], ["with decay", [0.2, 0.01]]])(
  "%s: huge keys that have left the window leave no trace, where subtracting them leaves nothing else",
  async (_, decay) => {
    const blocks = await blocksWith(2, decay);
    const window = new SlidingWindow<StoredState>(4, mergePair);
    const slid = blocks.map((block) => window.push(block));
    const merge = (some: readonly StoredState[]) => some.reduce(mergePair);
    const largest = (state: StoredState) => Math.max(...state.state.c);
    expect(largest(blocks[2]) - largest(merge(blocks.slice(3)))).toBeGreaterThan(40);
    for (let i = 3; i < blocks.length; i++) {
      const alone = merge(blocks.slice(i - 3, i + 1));
      const { c, z, S } = slid[i]!.state;
      expect(slid[i]!.rows).toBe(12);
      // Only the order in which four blocks are added differs.
      c.forEach((value, f) => expect(Math.abs(value - alone.state.c[f])).toBeLessThan(1e-13));
      z.forEach((value, f) => expect(Math.abs(value - alone.state.z[f])).toBeLessThan(1e-13));
      S.forEach((value, f) => expect(Math.abs(value - alone.state.S[f])).toBeLessThan(1e-13));
    }
    if (decay) return;
    // Rows 0 to 6 of blocks without the first three, by subtraction: e^{c} z of float64, which the huge keys have rounded.
    const [all, gone, rest] = [merge(blocks.slice(0, 7)), merge(blocks.slice(0, 3)), merge(blocks.slice(3, 7))];
    const sum = ({ state }: StoredState, f: number) => Math.exp(state.c[f]) * state.z[f];
    const off = rest.state.z.map((_, f) => Math.abs((sum(all, f) - sum(gone, f)) / sum(rest, f) - 1));
    expect(Math.max(...off)).toBeGreaterThan(0.5);
  },
);
