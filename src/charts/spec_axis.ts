/** What all panels' specifications share: JSON, lines of words, axes. */
import type { Axis } from "./chart.ts";
import { logTicks, tickText } from "./scales.ts";
import type { Theme } from "./style.ts";

/** A part of a specification. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json | undefined };
export type Layer = { readonly [key: string]: Json | undefined };

/** Words in lines of at most about `letters`. */
export function wrapped(text: string, letters: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    if (lines.length > 0 && lines.at(-1)!.length + word.length < letters) lines[lines.length - 1] += ` ${word}`;
    else lines.push(word);
  }
  return lines;
}

/** A panel's drawing in px, and its colours. */
export interface PanelSize {
  readonly width: number;
  readonly height: number;
  readonly theme: Theme;
}

/** Lines of an axis' title where there is so much room. */
export const titleLines = (title: string, room: number): string[] => wrapped(title, room / 6.6);

/** An axis in the words of Vega-Lite. */
export function axisSpec(
  axis: Axis,
  domain: readonly [number, number],
  { width, height }: PanelSize,
  side: "x" | "y",
): Layer {
  const [room, each] = side === "x" ? [width, 52] : [height, 30];
  const most = Math.max(3, Math.floor(room / each));
  const ticks = axis.ticks ?? (axis.scale === "log" ? logTicks(domain, most) : null);
  const shown = ticks?.filter((value) => value >= domain[0] && value <= domain[1]);
  const words = shown && Object.fromEntries(shown.map((value) => [String(value), tickText(value)]));
  return {
    type: "quantitative",
    scale: { type: axis.scale, domain, nice: false, zero: false },
    axis: {
      title: titleLines(axis.title, room),
      ...(shown
        ? { values: shown, labelExpr: `(${JSON.stringify(words)})[datum.value] || datum.label`, labelOverlap: "parity" }
        : { tickCount: Math.max(3, Math.min(8, Math.floor(room / (1.2 * each)))) }),
    },
  };
}
