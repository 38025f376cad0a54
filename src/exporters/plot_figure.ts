/** Attention weights in characters: exact ones beside those of the features, one line per query. Other figures are drawn as files. */
import type { FigureReport, Row } from "../figures/figure.ts";
import { drawHeat } from "../plots/heat.ts";
import { type PlotStyle, sentence } from "../plots/style.ts";
import { count, figure } from "../words.ts";

/** Lines that end with a newline; a sentence for a figure that is not a heat map. */
export function plotFigure({ name, title, data, findings }: FigureReport, style: PlotStyle): string {
  const { weights } = data;
  if (name !== "heatmap" || !weights) {
    return sentence(`figure ${name} is drawn as a file: performer figure ${name} -o figure.svg`, style);
  }
  const maps = (["exact", "approximate"] as const).map((side) => {
    return heatOf(weights, side, side === "exact" ? "Attention weights: exact softmax" : title, style);
  });
  return maps.join("\n") + sentence(findings[0], style);
}

function heatOf(weights: readonly Row[], side: "exact" | "approximate", title: string, style: PlotStyle): string {
  const places = [...new Set(weights.map(({ query }) => Number(query)))];
  const first = places[0];
  const grid = new Float64Array(places.length ** 2).fill(NaN);
  for (const row of weights) {
    grid[(Number(row.query) - first) * places.length + Number(row.key) - first] = Math.max(0, Number(row[side]));
  }
  return drawHeat({
    title,
    length: places.length,
    lines: places.map((place, i) => ({
      label: `query ${count(place)}`,
      text: figure(
        Math.max(...grid.subarray(i * places.length, (i + 1) * places.length).filter((value) => value >= 0)),
      ),
      // Several keys in a character: their largest weight.
      cell: (from, to) => {
        const seen = grid.subarray(i * places.length + from, i * places.length + to).filter((value) => value >= 0);
        return { value: seen.length > 0 ? Math.max(...seen) : NaN };
      },
    })),
    across: [
      `key ${count(first)}`,
      "keys in order; behind each line its largest weight",
      `key ${count(places.at(-1)!)}`,
    ],
    crossedLabel: "",
    emptyLabel: "not visible",
  }, style);
}
