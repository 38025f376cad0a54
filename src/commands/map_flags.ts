/** Flags that say what map is used and how it is drawn and fitted, of `attend` and `state`. */
import { parseSource } from "../fit.ts";
import { PROJECTIONS } from "../projection.ts";
import type { Flag } from "./command.ts";
import { TENSOR_FILES } from "./file_names.ts";
import { decay, wholeNumber } from "./flags.ts";

export const NUM_FEATURES_FLAG: Flag = {
  name: "num-features",
  short: "m",
  value: "R",
  summary: "length of the feature vector",
  default: 256,
  parse: wholeNumber(1),
};

export const PROJECTION_FLAG: Flag = {
  name: "projection",
  value: "NAME",
  summary: "random projection",
  choices: Object.keys(PROJECTIONS),
  default: "orthogonal",
};

export const NORMS_FLAG: Flag = {
  name: "norms",
  value: "NAME",
  summary: "row norms of the projection; sqrtd gives the regularised softmax kernel",
  choices: ["chi", "sqrtd"],
  default: "chi",
};

export const SEED_FLAG: Flag = {
  name: "seed",
  value: "N",
  summary: "seed of the projection, the encoder and the sample",
  default: 0,
  parse: wholeNumber(0),
};

export const PARAMS_FLAG: Flag = {
  name: "params",
  value: "ROWS",
  summary: "rows that fitted numbers come from: fixed (none), prefix:N, sample:N (spread over the file) or file " +
    "(default: sample:4096, causal prefix:1024, fixed for a given projection)",
  offers: ["fixed", "prefix:1024", "sample:4096", "file"],
  parse: parseSource,
};

export const CENTRE_FLAG: Flag = {
  name: "centre",
  value: "WHEN",
  summary: "move keys to where features vary least, which softmax does not see; auto: bidirectional, own projection",
  choices: ["auto", "on", "off"],
  default: "auto",
};

export const PROJECTION_MATRIX_FLAG: Flag = {
  name: "projection-matrix",
  value: "FILE",
  summary: "use this [m, d] or [heads, m, d] projection instead",
  files: TENSOR_FILES,
};

export const DECAY_FLAG: Flag = {
  name: "decay",
  value: "LIST",
  summary: "with --causal, weigh key j by exp(-L(i-j)): a number, one per key head, or alibi",
  offers: ["alibi"],
  parse: decay,
};

export const TILE_FLAG: Flag = {
  name: "tile",
  value: "ROWS",
  summary: "rows per piece; never changes the result",
  parse: wholeNumber(1),
};
