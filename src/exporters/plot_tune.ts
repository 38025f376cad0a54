/** A tune report as a picture: error against cost, with the settings worth choosing from on one line. */
import { settingName } from "../setting_words.ts";
import { errorOf } from "../trial.ts";
import type { Tried, TuneReport } from "../tune.ts";
import { drawChart, type Point, type Rule, type Series } from "../plots/chart.ts";
import { letterAt, type PlotStyle, sentence, toneAt } from "../plots/style.ts";
import { duration, figure } from "../words.ts";

/** Letters beyond these would be looked up more than read. */
const MOST_LETTERS = 9;

/** Lines that end with a newline. */
export function plotTune(report: TuneReport, style: PlotStyle): string {
  const { tried, chosen, exact, target, uniformBaseline, prefer } = report;
  if (tried.length === 0) return sentence("nothing to draw: no setting was tried", style);
  const memory = prefer === "memory";
  const cost = ({ seconds, stateBytes }: Tried) => memory ? stateBytes : seconds;
  const at = (one: Tried): Point => [cost(one), one.error.relativeL2.value];
  const front = frontOf(tried, cost);
  const named = [...new Set([...front.slice(0, MOST_LETTERS - 1), ...(chosen ? [chosen] : [])])]
    .sort((a, b) => cost(a) - cost(b));
  const others = tried.filter((one) => !named.includes(one));
  const series: Series[] = [
    { label: "", sign: "", tone: "plain", points: front.map(at), joined: "steps" },
    { label: "others", sign: style.ascii ? "o" : "•", tone: "dim", points: others.map(at) },
    ...named.map((one, i): Series => ({
      label: `${settingName(one.attention)}${one === chosen ? " (chosen)" : ""}`,
      sign: letterAt(i),
      tone: one === chosen ? "green" : toneAt(i),
      points: [at(one)],
    })),
  ];
  const rules: Rule[] = [
    { axis: "y", at: uniformBaseline, label: `the mean of V: ${figure(uniformBaseline)}`, short: "mean of V" },
    { axis: "y", at: target, label: `wanted: at most ${figure(target)}`, short: "wanted", tone: "green" },
    ...(memory ? [] : [
      {
        axis: "x",
        at: exact.seconds,
        label: `exact attention: about ${duration(exact.seconds)}`,
        short: "exact",
      } as const,
    ]),
  ];
  return drawChart({
    title: `error against ${memory ? "memory" : "time"}; the line joins what no other beats in both`,
    x: { label: memory ? "state in bytes" : "seconds for all rows", scale: "log" },
    y: { label: "relative L2 error against exact softmax", scale: "log" },
    series: series.filter(({ points }) => points.length > 0),
    rules,
    notes: front.length > MOST_LETTERS - 1
      ? [`letters for the cheapest ${MOST_LETTERS - 1} of ${front.length} on the line`]
      : [],
  }, style);
}

/** Those that no other beats in both cost and error, the cheapest first. */
function frontOf(tried: readonly Tried[], cost: (one: Tried) => number): Tried[] {
  let best = Infinity;
  return tried.toSorted((a, b) => cost(a) - cost(b) || errorOf(a) - errorOf(b)).filter((one) => {
    const better = errorOf(one) < best;
    best = Math.min(best, errorOf(one));
    return better;
  });
}
