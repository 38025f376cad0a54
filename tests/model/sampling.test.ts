/** Sampling rules of performer-pytorch's AutoregressiveWrapper: what may be chosen, and how often. */
import { expect, test } from "bun:test";
import { likeliest, nextToken, type Sampling } from "../../src/model/sampling.ts";
import { RandomStream } from "../../src/random.ts";

const PLAIN: Sampling = { temperature: 1, topK: null, topP: null, repetitionPenalty: 1, repetitionContext: 32 };
/** ln of the probabilities 0.5, 0.25, 0.15, 0.1. */
const LOGITS = [0.1, 0.5, 0.15, 0.25].map(Math.log);

/** Shares of 4,000 draws. */
function shares(sampling: Partial<Sampling>, before: number[] = [], logits = LOGITS): number[] {
  const random = new RandomStream(7, 1);
  const counts = logits.map(() => 0);
  for (let i = 0; i < 4000; i++) counts[nextToken(logits, before, { ...PLAIN, ...sampling }, random)]++;
  return counts.map((n) => n / 4000);
}

function near(found: number[], wanted: number[]): void {
  // Four standard deviations of a share of 4,000 draws are at most 0.032.
  found.forEach((share, i) => expect(Math.abs(share - wanted[i])).toBeLessThan(0.032));
  wanted.forEach((share, i) => share === 0 && expect(found[i]).toBe(0));
}

test("tokens come as often as the softmax says, sharpened by the temperature", () => {
  near(shares({}), [0.1, 0.5, 0.15, 0.25]);
  const squares = [0.01, 0.25, 0.0225, 0.0625];
  near(shares({ temperature: 0.5 }), squares.map((p) => p / 0.345));
  for (const temperature of [0, 1e-320]) expect(shares({ temperature })).toEqual([0, 1, 0, 0]);
});

test("top-k keeps the K likeliest, top-p those that reach P and the one that does", () => {
  near(shares({ topK: 2 }), [0, 2 / 3, 0, 1 / 3]);
  near(shares({ topP: 0.6 }), [0, 2 / 3, 0, 1 / 3]);
  near(shares({ topP: 0.8 }), [0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9]);
  near(shares({ topK: 3, topP: 0.45 }), [0, 1, 0, 0]);
  near(shares({ topP: 1 }), [0.1, 0.5, 0.15, 0.25]);
});

test("the repetition penalty divides the logits of recent tokens, once each", () => {
  const logits = [2, 4, 1, 0];
  const greedy = (before: number[], changes: Partial<Sampling>) =>
    nextToken(logits, before, { ...PLAIN, temperature: 0, ...changes }, new RandomStream(0));
  expect(greedy([1, 1, 1], { repetitionPenalty: 1.9 })).toBe(1); // 4 / 1.9 > 2
  expect(greedy([1, 1, 1], { repetitionPenalty: 2.1 })).toBe(0);
  expect(greedy([1, 3, 3], { repetitionPenalty: 2.1, repetitionContext: 2 })).toBe(1);
});

test("the first of equal logits is the likeliest, and the same seed chooses the same tokens", () => {
  expect(likeliest([1, 3, 3])).toBe(1);
  const draw = () => {
    const random = new RandomStream(3, 0);
    return Array.from({ length: 20 }, () => nextToken(LOGITS, [], PLAIN, random));
  };
  expect(draw()).toEqual(draw());
});
