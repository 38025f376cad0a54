/** Models that are recognised by their names only: what they are, and how a part of them can be used. */
import type { Description, FamilyName } from "../description.ts";
import { type Family, prefixesOf } from "./family.ts";

interface Named {
  readonly family: FamilyName;
  readonly title: string;
  readonly anchor: RegExp;
  readonly reason: string;
}

const SOFTMAX = "it is a softmax transformer, not a Performer: nothing here runs it whole";

const NAMED: readonly Named[] = [
  {
    family: "bulkformer",
    title: "BulkFormer",
    anchor: /^((?:.*?\.)?)gb_formers\.0\.f\.0\.net\.layers\.0\.0\..*to_q\.weight$/,
    reason:
      "its graph convolutions are not run here; its Performer blocks are: choose one with --part gb_formers.0.f.0",
  },
  {
    family: "roberta",
    title: "RoBERTa (softmax transformer)",
    anchor: /^((?:.*?\.)?)roberta\.encoder\.layer\.0\.attention\.self\.query\.weight$/,
    reason: SOFTMAX,
  },
  {
    family: "bert",
    title: "BERT (softmax transformer)",
    anchor: /^((?:.*?\.)?)(?:bert\.)?encoder\.layer\.0\.attention\.self\.query\.weight$/,
    reason: SOFTMAX,
  },
  {
    family: "gpt2",
    title: "GPT-2 (softmax transformer)",
    anchor: /^((?:.*?\.)?)h\.0\.attn\.c_attn\.weight$/,
    reason: SOFTMAX,
  },
  {
    family: "llama",
    title: "Llama-style (softmax transformer)",
    anchor: /^((?:.*?\.)?)layers\.0\.self_attn\.q_proj\.weight$/,
    reason: SOFTMAX,
  },
];

/** The families of the table, each recognised by one tensor. */
export const named: readonly Family[] = NAMED.map(({ family, title, anchor, reason }) => ({
  title,
  prefixes: (names) => prefixesOf(names, anchor).slice(0, 1),
  describe: (_, prefix): Description => ({
    family,
    title,
    prefix,
    versions: null,
    rules: family === "bulkformer" ? "lucidrains" : "exact",
    architecture: {},
    assumed: [],
    unknown: [],
    extra: [],
    layout: null,
    reason,
  }),
}));
