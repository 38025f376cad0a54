/** Token by token: a state of constant size stands for all tokens so far, and gives what causal attention over all of them gives. */
import { attend, newState, normal, relativeError, restoreState } from "../mod.ts";

const [tokens, width] = [500, 32];
const [q, k, v] = [1, 2, 3].map((seed) => normal([tokens, width], { seed, sd: 0.5 }));
const row = (x: typeof q, i: number) => x.data.subarray(i * width, (i + 1) * width);

const state = await newState({ width, numFeatures: 128 });
const outputs: number[] = [];
for (let i = 0; i < tokens; i++) {
  // One step: the token sees itself and everything absorbed before it, and is absorbed.
  outputs.push(...(await state.step(row(q, i), row(k, i), row(v, i))).data);
}

const whole = await attend(q, k, v, { causal: true, numFeatures: 128, backend: "scalar" });
const { state: numbers } = await state.save();
console.log(`tokens seen          ${state.rows}`);
console.log(`numbers in the state ${numbers.c.length + numbers.z.length + numbers.S.length}`);
console.log(`step by step against one call: ${relativeError(outputs, whole.output)}`);

// A copy is a branch: two continuations of the same text share what came before.
const branch = await restoreState(await state.save());
await branch.absorb(row(k, 0), row(v, 0));
console.log(`after a branch       ${state.rows} and ${branch.rows}`);
