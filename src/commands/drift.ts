/** `performer drift MODEL INPUT`: exact and FAVOR attention side by side through a whole model. */
import { UsageError } from "../errors.ts";
import { EXACT, FEATURE_MAPS, OWN } from "../feature_map.ts";
import { PROJECTIONS } from "../projection.ts";
import type { Command } from "./command.ts";
import { BACKEND_FLAG, COMMON_FLAGS, FORMAT_FLAG, listOf, rowSlice, THREADS_FLAG, wholeNumber } from "./flags.ts";
import { TENSOR_FILES } from "./file_names.ts";
import { CONFIG_FLAG, MASK_FLAG, MODEL_ARGUMENT, PART_FLAG } from "./model_flags.ts";

/** "all", "3" or "0:6". */
function layerSlice(text: string): { start: number | null; end: number | null } {
  if (text === "all") return { start: null, end: null };
  if (/^\d+$/.test(text)) return { start: Number(text), end: Number(text) + 1 };
  try {
    return rowSlice(text);
  } catch {
    throw new UsageError("expected all, a layer such as 3, or layers such as 0:6");
  }
}

export const drift: Command = {
  name: "drift",
  summary:
    "exact and FAVOR attention side by side through a model: error per layer, best map and m, effect on the outputs",
  arguments: [
    MODEL_ARGUMENT,
    {
      name: "INPUT",
      summary: "a .npy of tokens [L] or [b, L], or of rows [L, dim] for a model without embedding",
      files: TENSOR_FILES,
    },
  ],
  flags: [
    CONFIG_FLAG,
    MASK_FLAG,
    PART_FLAG,
    {
      name: "layer",
      value: "N|A:B",
      summary: "layers whose attention is replaced",
      default: "all",
      offers: ["all"],
      parse: layerSlice,
    },
    {
      name: "features",
      value: "LIST",
      summary:
        "feature maps, own being the checkpoint's (default hyperbolic,positive, and own before them where there are some)",
      // Angular maps are told rows' places by attend; layers of a model do not have them.
      choices: [...FEATURE_MAPS.filter((map) => !map.angular).map((map) => map.name), EXACT, OWN],
      list: true,
    },
    {
      name: "num-features",
      short: "m",
      value: "LIST",
      summary: "lengths of the feature vector",
      default: [64, 256],
      parse: listOf(wholeNumber(1)),
    },
    {
      name: "projection",
      value: "NAME",
      summary: "random projection; every layer draws its own",
      choices: Object.keys(PROJECTIONS),
      default: "orthogonal",
    },
    { name: "seed", value: "N", summary: "seed of the projections", default: 0, parse: wholeNumber(0) },
    BACKEND_FLAG,
    THREADS_FLAG,
    { name: "tile", value: "ROWS", summary: "rows per piece; never changes the result", parse: wholeNumber(1) },
    {
      name: "output",
      short: "o",
      value: "FILE",
      summary: "save the report as well: .json, .csv or .md",
      files: [".json", ".csv", ".md"],
      writes: "file",
    },
    FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: [
    "performer drift model.safetensors tokens.npy --config config.json",
    "performer drift model.safetensors tokens.npy --features hyperbolic,positive -m 64,256,1024 --layer 0:2 --json",
  ],
  async run(invocation, terminal) {
    const { runDrift } = await import("./drift_run.ts");
    return await runDrift(invocation, terminal);
  },
};
