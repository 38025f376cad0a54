/**
 * `bun scripts/tables/equal_features.ts`: relative mean squared error of one weight at equal numbers of features, r = 256, d = 64,
 * block-orthogonal projections. Closed forms, no chance (own derivation, src/closed_forms.ts).
 */
import { bestQuadratic, relativeKernelError, searchQuadratic } from "../../src/closed_forms.ts";
import { judgeExact, show, type Table, TableBuilder } from "./harness.ts";

const [FEATURES, HEAD_DIM] = [256, 64];
const PUBLISHED = [
  [0.25, "9.9e-4", "1.4e-5", "9.8e-4", "8.1e-6"],
  [1, "4.9e-3", "6.3e-4", "4.6e-3", "3.6e-4"],
  [4, "0.184", "0.155", "0.113", "0.084"],
  [8, "11.6", "11.5", "2.82", "2.74"],
  [16, "3.5e4", "3.5e4", "431.4", "431.2"],
] as const;

export function table(): Table {
  const head = ["‖x+y‖²", "positive", "hyperbolic", "oprf", "hyp-oprf"];
  const built = new TableBuilder(
    `Relative squared error of one weight at r = ${FEATURES}, d = ${HEAD_DIM}, orthogonal: ours (published)`,
    head,
  );
  for (const [s, ...published] of PUBLISHED) {
    const at = (map: "positive" | "hyperbolic") => {
      return {
        map,
        coupling: "orthogonal",
        headDim: HEAD_DIM,
        projections: map === "positive" ? FEATURES : FEATURES / 2,
      } as const;
    };
    const error = (map: "positive" | "hyperbolic", quadratic = 0) =>
      relativeKernelError({ ...at(map), quadratic }, { s, delta: 0 });
    const ours = [
      error("positive"),
      error("hyperbolic"),
      error("positive", bestQuadratic(s, HEAD_DIM)),
      error("hyperbolic", searchQuadratic(at("hyperbolic"), s)),
    ];
    built.add(String(s), ours.map((value, i) => judgeExact(value, { text: published[i] })));
  }
  return built.done();
}

if (import.meta.main) show(table());
