/** `performer figure NAME`: the paper's figures re-made, theorems checked, and pictures of the reader's own tensors. */
import { EXACT, FEATURE_MAPS, TAYLOR_MAPS } from "../feature_map.ts";
import { PROJECTIONS } from "../projection.ts";
import { lengthOf } from "./bench.ts";
import type { Command, Flag } from "./command.ts";
import { BACKEND_FLAG, COMMON_FLAGS, doublings, listOf, positiveNumber, THREADS_FLAG, wholeNumber } from "./flags.ts";
import { INPUT_FILES, INPUT_FLAGS } from "./input_flags.ts";

/** Figures by name, with what each shows. */
export const FIGURES: Readonly<Record<string, string>> = {
  "2": "where positive features beat trigonometric ones (closed forms)",
  "3": "time against length: FAVOR+, exact, identity; INPUT: a .json of bench instead of measuring",
  "4": "error of the output against m: orthogonal and iid, positive and trigonometric",
  theorem: "theorems on orthogonal features against drawn ones",
  heads: "error per head of INPUT, for each of --features and -m",
  heatmap: "exact and approximate attention weights of a slice of INPUT, or of seeded rows",
};

const FLAGS: readonly Flag[] = [
  {
    name: "output",
    short: "o",
    value: "PATH",
    summary: "FILE.svg, .png, .json, .csv or .vl.json; or a folder for all of them (default figure-NAME.svg here)",
    files: [".svg", ".png", ".json", ".csv"],
    writes: "folder",
  },
  {
    name: "export-data",
    value: "FILE",
    summary: "write the numbers as well: .json or .csv",
    files: [".json", ".csv"],
    writes: "file",
  },
  {
    name: "export-spec",
    value: "FILE",
    summary: "write the Vega-Lite specification as well, to be edited",
    files: [".json"],
    writes: "file",
  },
  {
    name: "width",
    value: "PX",
    summary: "width of the picture (default 1100, of one panel 760); a .png has twice as many pixels",
    parse: wholeNumber(320),
  },
  {
    name: "trials",
    value: "N",
    summary: "draws: of data and projection (4, default 15), of projections (theorem 10000, heads 3)",
    parse: wholeNumber(1),
  },
  { name: "seed", value: "N", summary: "seed of data and projections", default: 0, parse: wholeNumber(0) },
  {
    name: "features",
    value: "LIST",
    summary: "feature maps of 3, heads and heatmap",
    choices: [...FEATURE_MAPS.map((map) => map.name), ...TAYLOR_MAPS, EXACT],
    list: true,
  },
  {
    name: "num-features",
    short: "m",
    value: "LIST",
    summary: "lengths of the feature vector: numbers, and ranges such as 64..1024, which double",
    parse: (text) => [...new Set(listOf(doublings)(text).flat())],
  },
  {
    name: "projection",
    value: "NAME",
    summary: "random projection of 3, heads and heatmap",
    choices: Object.keys(PROJECTIONS),
    default: "orthogonal",
  },
  {
    name: "lengths",
    short: "L",
    value: "LIST",
    summary: "rows: of 3 (default 2^6 to 2^17, doubling), one of 4 (default 4096)",
    parse: listOf(lengthOf),
  },
  {
    name: "budget",
    value: "S",
    summary: "seconds that exact attention may take in 3; longer L are left out",
    default: 30,
    parse: positiveNumber,
  },
  {
    name: "check",
    value: "N",
    summary: "query rows compared with exact softmax (heads)",
    default: 256,
    parse: wholeNumber(1),
  },
  { name: "head", value: "H", summary: "head of INPUT that heatmap shows, from 0", default: 0, parse: wholeNumber(0) },
  { name: "size", value: "N", summary: "rows and columns of heatmap, at most 128", default: 32, parse: wholeNumber(2) },
  {
    name: "head-dim",
    value: "D",
    summary: "width of the rows of 3 and of seeded rows (default 64, heatmap 16)",
    parse: wholeNumber(1),
  },
  BACKEND_FLAG,
  THREADS_FLAG,
  ...INPUT_FLAGS,
  {
    name: "format",
    value: "NAME",
    summary: "what is printed",
    choices: ["text", "json", "jsonl", "csv"],
    default: "text",
  },
  ...COMMON_FLAGS,
];

export const figure: Command = {
  name: "figure",
  summary: "the paper's figures, theorem checks and pictures of attention as SVG, PNG and data",
  arguments: [
    {
      name: "NAME",
      summary: Object.entries(FIGURES).map(([name, words]) => `${name}: ${words}`).join("; "),
      offers: Object.keys(FIGURES),
      meanings: FIGURES,
    },
    {
      name: "INPUT",
      summary: "tensors of heads and heatmap, as for attend; a saved .json of bench for 3",
      optional: true,
      files: [...INPUT_FILES, ".json"],
    },
  ],
  flags: FLAGS,
  examples: [
    "performer figure 4 -o figures/",
    "performer figure 2 -o ratio.png --width 1600",
    "performer figure 3 lengths.json -o time.svg",
    "performer figure heads qkv.npz --features positive,hyperbolic -m 64,256 -o heads.svg",
    "performer figure heatmap --features trigonometric -m 64 -o weights.png",
  ],
  async run(invocation, terminal) {
    const { runFigure } = await import("./figure_run.ts");
    return await runFigure(invocation, terminal);
  },
};
