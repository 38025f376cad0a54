/**
 * `bun scripts/tables/variance_ratio.ts`: mean squared error of trigonometric over that of positive features at equal m, for
 * ‖x‖ = ‖y‖ = l at an angle ϕ (arXiv 2009.14794 Fig. 2 and Lemma 2), and the angle where they are equal. Closed forms, no chance.
 */
import { crossing, varianceRatio } from "../../src/figures/ratio.ts";
import { judgeExact, show, type Table, TableBuilder } from "./harness.ts";

const ANGLES = { "π/4": Math.PI / 4, "π/2": Math.PI / 2, "2π/3": 2 * Math.PI / 3, "3π/4": 3 * Math.PI / 4, "3.0": 3 };
const PUBLISHED = [
  [0.5, "0.00796935", "0.196735", "1.03752", "2.45342", "107.095", "2.08275"],
  [1, "0.00600603", "0.432332", "5.27717", "17.8465", "1274.57", "1.74263"],
  [1.5, "0.000462122", "0.494446", "50.1936", "395.998", "84061.4", "1.64788"],
  [2, "4.98657e-6", "0.499832", "1518.27", "45320.4", "4.92034e7", "1.61413"],
] as const;

export function table(): Table {
  const head = ["l", ...Object.keys(ANGLES).map((name) => `ϕ = ${name}`), "equal at ϕ ="];
  const built = new TableBuilder("Squared error of trigonometric over positive features: ours (published)", head);
  for (const [length, ...published] of PUBLISHED) {
    const ours = [...Object.values(ANGLES).map((angle) => varianceRatio(angle, length)), crossing(length)];
    built.add(String(length), ours.map((value, i) => judgeExact(value, { text: published[i] })));
  }
  return built.done();
}

if (import.meta.main) show(table());
