/** `performer generate MODEL`: autoregressive decoding from a running state. */
import { RULES } from "../rules_table.ts";
import type { Command } from "./command.ts";
import { TENSOR_FILES } from "./file_names.ts";
import { CONFIG_FLAG, MODEL_ARGUMENT, PART_FLAG } from "./model_flags.ts";
import {
  BACKEND_FLAG,
  COMMON_FLAGS,
  notNegative,
  PLAIN_FORMAT_FLAG,
  positiveNumber,
  probability,
  THREADS_FLAG,
  wholeNumber,
} from "./flags.ts";

export const generate: Command = {
  name: "generate",
  summary: "text or tokens from a causal model, at constant time and memory per token",
  arguments: [
    MODEL_ARGUMENT,
  ],
  flags: [
    {
      name: "prompt",
      value: "TEXT|FILE",
      summary:
        "what comes before: a .npy of tokens [L] or [b, L], or text for a model over the 256 bytes; - is text on stdin",
      files: [".npy"],
    },
    {
      name: "num-tokens",
      short: "n",
      value: "N",
      summary: "tokens to generate",
      default: 256,
      parse: wholeNumber(1),
    },
    {
      name: "temperature",
      value: "T",
      summary: "logits are divided by it; 0 takes the likeliest token",
      default: 1,
      parse: notNegative,
    },
    { name: "greedy", summary: "always the likeliest token: short for --temperature 0" },
    {
      name: "top-k",
      value: "K",
      summary: "only the K likeliest tokens; a tenth of all tokens unless given, 0 = all",
      parse: wholeNumber(0),
    },
    {
      name: "top-p",
      value: "P",
      summary: "only the likeliest tokens that together reach probability P, instead of --top-k's default",
      parse: probability,
    },
    {
      name: "repetition-penalty",
      value: "X",
      summary: "logits of recent tokens are divided by it",
      default: 1,
      parse: positiveNumber,
    },
    {
      name: "repetition-context",
      value: "N",
      summary: "how many tokens are recent",
      default: 32,
      parse: wholeNumber(0),
    },
    { name: "seed", value: "N", summary: "seed of the choices", default: 0, parse: wholeNumber(0) },
    { name: "stop", value: "TOKEN", summary: "token that ends the text", parse: wholeNumber(0) },
    {
      name: "output",
      short: "o",
      value: "FILE",
      summary: "write prompt and new tokens: .npy, .npz or .safetensors, int32",
      files: TENSOR_FILES,
      writes: "file",
    },
    CONFIG_FLAG,
    {
      name: "compat",
      value: "PROFILE",
      summary: "numerics; lucidrains-causal for a model trained with performer-pytorch",
      choices: RULES.map((rules) => rules.name),
    },
    { name: "recompute", summary: "a whole forward pass for every token, as performer-pytorch does: slow" },
    {
      name: "check",
      value: "N",
      summary: "compare the first N rows with the profile the model was trained under, 0 = off",
      default: 256,
      parse: wholeNumber(0),
    },
    {
      name: "warm-up",
      value: "SECONDS",
      summary: "decode for so long and throw it away before the clock starts: for timing",
      default: 0,
      parse: notNegative,
    },
    PART_FLAG,
    BACKEND_FLAG,
    THREADS_FLAG,
    PLAIN_FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: [
    "performer generate model.pt --config config.json --prompt 'The command ' -n 500",
    "performer generate model.pt --config config.json --prompt prompt.npy --greedy -o tokens.npy --json",
  ],
  async run(invocation, terminal) {
    const { runGenerate } = await import("./generate_run.ts");
    return await runGenerate(invocation, terminal);
  },
};
