/** Flags that say which rows of which files are attended to, and how: see attend_files.ts. */
import type { Argument, Flag } from "./command.ts";
import { SEQUENCE_FILES, TENSOR_FILES } from "./file_names.ts";
import { positiveNumber, rowSlice, wholeNumber } from "./flags.ts";

/** Files that attention is run over. */
export const INPUT_FILES = [...TENSOR_FILES, ...SEQUENCE_FILES] as const;

export const INPUT_ARGUMENT: Argument = {
  name: "INPUT",
  summary: ".npy, .npz, .safetensors, FASTA (with --encode) or -",
  optional: true,
  files: INPUT_FILES,
};

export const INPUT_FLAGS: readonly Flag[] = [
  { name: "causal", summary: "row i sees rows up to i" },
  { name: "heads", value: "H", summary: "heads to split the columns of [L, D] in (default 1)", parse: wholeNumber(1) },
  { name: "kv-heads", value: "K", summary: "heads of keys and values, where fewer (GQA, MQA)", parse: wholeNumber(1) },
  { name: "scale", value: "S", summary: "logit scale instead of 1/sqrt(d)", parse: positiveNumber },
  {
    name: "mask",
    value: "FILE",
    summary: "one number per key row: 0 removes the key, others weigh it",
    files: TENSOR_FILES,
  },
  { name: "q", value: "FILE", summary: "queries from their own file", files: TENSOR_FILES },
  { name: "k", value: "FILE", summary: "keys from their own file", files: TENSOR_FILES },
  { name: "v", value: "FILE", summary: "values from their own file", files: TENSOR_FILES },
  {
    name: "layout",
    value: "NAME",
    summary: "axes of 3-D and 4-D tensors: heads or rows first",
    choices: ["hld", "lhd"],
    default: "hld",
  },
  { name: "dtype", value: "NAME", summary: "read 2-byte elements as bf16", choices: ["bf16"] },
  {
    name: "encode",
    value: "HOW",
    summary: "read FASTA or text and embed it: kmer:K or kmer:K:WINDOW",
    offers: ["kmer:6"],
  },
  { name: "rows", value: "A:B", summary: "use only these rows of every input", parse: rowSlice },
];
