/** A page for every numerics profile of `--compat`. Sources: src/rules_table.ts, docs/models.md. */
import { leaksFuture, RULES, type Rules } from "../rules_table.ts";
import type { Topic } from "./topic.ts";

/** 1e-4, 0. */
const short = (epsilon: number) => epsilon === 0 ? "0" : epsilon.toExponential();

function facts({ epsilon, generalisedEpsilon, kernels, masks, name }: Rules): [string, string][] {
  return [
    ["kernels", kernels.join(", ")],
    ["ε", `${short(epsilon)} of softmax features, ${short(generalisedEpsilon)} of others`],
    ["masked keys", masks === "keys" ? "are left out" : "lose their values only, and stay in denominators"],
    ["causal rows", leaksFuture(name) ? "depend a little on later keys" : "never depend on later keys"],
  ];
}

const featuresOf = ({ kernels, paired }: Rules) =>
  !kernels.includes("softmax") ? "relu" : paired ? "hyperbolic" : "positive";

export const PROFILE_TOPICS: readonly Topic[] = RULES.map((rules) => ({
  name: rules.name,
  group: "numerics",
  summary: rules.summary,
  body: [
    rules.name === "exact"
      ? "The numerics of this program, and the default of attend."
      : "What another system computes, with its constants: for checkpoints that were trained with it. run takes the profile that a model's tensors tell.",
    { terms: facts(rules) },
  ],
  examples: [
    `performer attend qkv.npz --compat ${rules.name} --features ${featuresOf(rules)}`,
    `performer run model.pt tokens.npy --compat ${rules.name} -o logits.npy`,
  ],
  see: ["run", ...RULES.flatMap(({ name }) => name === rules.name ? [] : [name])],
}));
