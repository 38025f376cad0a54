/** `performer run MODEL TOKENS`: a whole model forward. */
import { RULES } from "../rules_table.ts";
import type { Command } from "./command.ts";
import { UsageError } from "../errors.ts";
import { TENSOR_FILES } from "./file_names.ts";
import { BACKEND_FLAG, COMMON_FLAGS, PLAIN_FORMAT_FLAG, THREADS_FLAG, wholeNumber } from "./flags.ts";
import { CONFIG_FLAG, MASK_FLAG, MODEL_ARGUMENT, PART_FLAG } from "./model_flags.ts";

/** What of the attention is wanted. */
export interface AttentionWish {
  /** Keys per row, or null for what tokens receive. */
  readonly top: number | null;
}

function attentionWish(text: string): AttentionWish {
  if (text === "received") return { top: null };
  const top = /^top:(\d+)$/.exec(text);
  if (!top || Number(top[1]) < 1) throw new UsageError("expected received or top:K, such as top:10");
  return { top: Number(top[1]) };
}

export const run: Command = {
  name: "run",
  summary:
    "a whole model forward, Performer or softmax transformer: tokens to logits, or to the rows before the output layer",
  arguments: [
    MODEL_ARGUMENT,
    {
      name: "TOKENS",
      summary: "a .npy of whole numbers [L] or [b, L], or of rows [L, dim] for a model without embedding",
      files: TENSOR_FILES,
    },
  ],
  flags: [
    {
      name: "output",
      short: "o",
      value: "FILE",
      summary: "write the outputs: .npy, .npz or .safetensors; - is stdout (.npy)",
      files: TENSOR_FILES,
      writes: "file",
    },
    CONFIG_FLAG,
    MASK_FLAG,
    {
      name: "context",
      value: "FILE",
      summary: "what cross attention sees: rows [L, dim] or [b, L, dim], or the tokens of a PerformerEncDec's encoder",
      files: TENSOR_FILES,
    },
    {
      name: "context-mask",
      value: "FILE",
      summary: "one number per row or token of --context, 0 = padding",
      files: TENSOR_FILES,
    },
    {
      name: "output-dtype",
      value: "NAME",
      summary: "element type of the output; scalar computes in f64",
      choices: ["f32", "f64", "f16"],
      default: "f32",
    },
    {
      name: "attention",
      value: "WHAT",
      summary:
        "write attention instead of outputs: received (by every token from all rows, [layers, heads, L]) or top:K (the K keys " +
        "that every row of --rows looks at most)",
      offers: ["received", "top:10"],
      parse: attentionWish,
    },
    {
      name: "rows",
      value: "LIST",
      summary: "rows whose top keys are wanted: 0,5,17 or A:B (at most 256 of them)",
    },
    { name: "encodings", summary: "the rows before the output layer instead of its outputs" },
    {
      name: "compat",
      value: "PROFILE",
      summary: "numerics instead of those the tensors tell",
      choices: RULES.map((rules) => rules.name),
    },
    PART_FLAG,
    BACKEND_FLAG,
    THREADS_FLAG,
    { name: "tile", value: "ROWS", summary: "rows per piece; never changes the result", parse: wholeNumber(1) },
    PLAIN_FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: [
    "performer run model.pt tokens.npy --config config.json -o logits.npy",
    "performer run scbert.pth cells.npy --encodings -o genes.npy --json",
    "performer run scbert.pth cells.npy --attention received -o received.npy",
  ],
  makesTensor: true,
  async run(invocation, terminal) {
    const { runModel } = await import("./run_model.ts");
    return await runModel(invocation, terminal);
  },
};
