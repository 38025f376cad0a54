/** BulkFormer: recognised by name only; its Performer blocks can be used as parts. */
import { type Family, prefixesOf } from "./family.ts";

export const bulkFormer: Family = {
  title: "BulkFormer",
  prefixes: (names) =>
    prefixesOf(names, /^((?:.*?\.)?)gb_formers\.0\.f\.0\.net\.layers\.0\.0\..*to_q\.weight$/).slice(0, 1),
  describe: (_, prefix) => ({
    family: "bulkformer",
    title: "BulkFormer",
    prefix,
    versions: null,
    rules: "lucidrains",
    architecture: {},
    assumed: [],
    unknown: [],
    extra: [],
    layout: null,
    reason:
      "its graph convolutions are not run here; its Performer blocks are: choose one with --part gb_formers.0.f.0",
  }),
};
