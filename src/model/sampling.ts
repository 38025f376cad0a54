/** From logits to the next token, as `generate` of performer-pytorch's AutoregressiveWrapper has it. */
import type { RandomStream } from "../random.ts";

export interface Sampling {
  /** Logits are divided by it; 0 takes the likeliest token. */
  readonly temperature: number;
  /** Only the K likeliest tokens; null = all. */
  readonly topK: number | null;
  /** Only the likeliest tokens that together have probability P, the one that reaches it included; null = all. */
  readonly topP: number | null;
  /** Logits of the last `repetitionContext` tokens are divided by it; 1 = off. */
  readonly repetitionPenalty: number;
  readonly repetitionContext: number;
}

/** The next token after `before`. The same logits, settings and stream give the same token on every runtime. */
export function nextToken(
  logits: ArrayLike<number>,
  before: readonly number[],
  sampling: Sampling,
  random: RandomStream,
): number {
  const penalised = Float64Array.from(logits);
  for (const token of new Set(repeated(before, sampling))) penalised[token] /= sampling.repetitionPenalty;
  if (sampling.temperature === 0) return likeliest(penalised);
  const order = Array.from(penalised, (_, token) => token).sort((a, b) => penalised[b] - penalised[a] || a - b);
  const kept = withinMass(order.slice(0, sampling.topK ?? order.length), penalised, sampling.topP);
  const weights = softmax(kept.map((token) => (penalised[token] - penalised[kept[0]]) / sampling.temperature));
  let left = random.uniform();
  for (const [i, token] of kept.entries()) {
    left -= weights[i];
    if (left < 0) return token;
  }
  return kept[kept.length - 1];
}

function repeated(before: readonly number[], { repetitionPenalty, repetitionContext }: Sampling): readonly number[] {
  return repetitionPenalty === 1 || repetitionContext === 0 ? [] : before.slice(-repetitionContext);
}

/** Position of the largest number, the first of equal ones. */
export function likeliest(logits: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** The shortest start of `order` whose probability under the logits exceeds `mass`. */
function withinMass(order: number[], logits: Float64Array, mass: number | null): number[] {
  if (mass === null) return order;
  const weights = softmax(order.map((token) => logits[token]));
  let sum = 0;
  const end = weights.findIndex((weight) => (sum += weight) > mass);
  return end < 0 ? order : order.slice(0, end + 1);
}

/** Of numbers in descending order. */
function softmax(logits: readonly number[]): number[] {
  const weights = logits.map((logit) => Math.exp(logit - logits[0]));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}
