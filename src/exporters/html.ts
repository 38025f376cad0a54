/**
 * Pages to show: one file, nothing fetched, no script. Text is escaped by the template itself, so that no name of a file or a tensor can
 * become markup; charts are drawn twice, for wide and for narrow windows, in colours of the page's light or dark scheme.
 */
import type { Chart } from "../charts/chart.ts";
import { drawSvg } from "../charts/draw.ts";
import { soundChart } from "../charts/sound.ts";
import { specOf } from "../charts/spec.ts";
import { PAGE } from "../charts/style.ts";
import { plain } from "../words.ts";
import { STYLE } from "./html_style.ts";

/** Markup that is safe to stand in a page as it is. */
export class Html {
  constructor(readonly text: string) {}
}

/** What a template takes: markup as it is, everything else as escaped text; lists one after the other, null as nothing. */
export type Part = Html | string | number | null | readonly Part[];

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};
const escaped = (text: string) => plain(text).replace(/[&<>"']/g, (letter) => ENTITIES[letter]);

function markup(part: Part): string {
  if (part === null) return "";
  if (part instanceof Html) return part.text;
  return typeof part === "object" ? part.map(markup).join("") : escaped(String(part));
}

/** A piece of a page. */
export function fragment(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + markup(parts[i - 1]) + string));
}

/** What a run was made with: not part of its report. */
export interface PageContext {
  /** The command line, as a shell takes it. */
  readonly command: string;
  /** Version, runtime, machine, date: names with words. */
  readonly environment: readonly (readonly [name: string, words: string])[];
}

/** Words as a sentence of their own. */
export const sentence = (words: string): string => `${words[0]?.toUpperCase() ?? ""}${words.slice(1)}.`;

/** How good news is. */
export type Tone = "good" | "fair" | "bad" | "plain";

/** A number large enough to be read across a table. */
export interface Tile {
  readonly name: string;
  readonly value: string;
  readonly note: string;
  readonly tone?: Tone;
}

/** A page from its parts. */
export interface Page {
  readonly title: string;
  readonly subtitle: string;
  /** What came out, in a sentence or two. */
  readonly verdict: { readonly tone: Tone; readonly words: readonly string[] };
  readonly tiles: readonly Tile[];
  readonly warnings: readonly { readonly message: string; readonly remedy: string }[];
  readonly sections: readonly { readonly heading: string; readonly body: readonly Part[] }[];
  /** Everything as JSON, folded away. */
  readonly report: object;
  readonly context: PageContext;
}

/** JSON longer than this is left out: a page is to be read. */
const MOST_JSON = 400_000;

/** The whole page. */
export function page({ title, subtitle, verdict, tiles, warnings, sections, report, context }: Page): string {
  const json = JSON.stringify(report, null, 2);
  const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
  const head = fragment`<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<link rel="icon" href="data:,">
<title>${title}</title>
<style>${new Html(STYLE)}</style>`;
  const top =
    fragment`<header><p class="brand">performer</p><h1>${title}</h1><p class="subtitle">${subtitle}</p></header>
<section class="verdict ${verdict.tone}">${verdict.words.map((words) => fragment`<p>${words}</p>`)}</section>
<dl class="tiles">${tiles.map(tileMarkup)}</dl>
${
      warnings.map(({ message, remedy }) =>
        fragment`<aside class="warning"><p><strong>Warning: ${message}</strong></p><p>${remedy}</p></aside>
`
      )
    }`;
  const numbers = json.length > MOST_JSON
    ? fragment`<p class="caption">The report as JSON is too long for this page: add --json to the command for all numbers.</p>`
    : fragment`<details><summary>All numbers (JSON)</summary><pre>${new Html(lines(json))}</pre></details>`;
  const made = fragment`<section><h2>How it was made</h2>
<pre class="command"><code>${context.command}</code></pre>
${factTable(context.environment)}
${numbers}</section>`;
  const middle = sections.map(({ heading, body }) =>
    fragment`<section><h2>${heading}</h2>
${body}</section>
`
  );
  return fragment`<!doctype html>
<html lang="en">
<head>
${head}
</head>
<body>
<main>
${top}${middle}${made}
</main>
</body>
</html>
`.text;
}

const tileMarkup = ({ name, value, note, tone = "plain" }: Tile): Html =>
  fragment`<div class="tile ${tone}"><dt>${name}</dt><dd>${value}</dd><dd class="note">${note}</dd></div>`;

/** Text of several lines, escaped. */
const lines = (text: string) => text.split("\n").map(escaped).join("\n");

/** Names with words. */
export function factTable(facts: readonly (readonly [name: string, words: string])[]): Html {
  const named = facts.filter(([, words]) => words !== "");
  const row = ([name, words]: readonly [string, string]) =>
    fragment`<tr><th scope="row">${name}</th><td>${words}</td></tr>\n`;
  return fragment`<table class="facts"><tbody>${named.map(row)}</tbody></table>`;
}

/** A table; columns named in `right` hold numbers, and rows have a tone. */
export function dataTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  right: ReadonlySet<string>,
  tones: readonly (Tone | "chosen")[] = [],
): Html {
  const side = (name: string) => right.has(name) ? "number" : "text";
  const head = header.map((name) => fragment`<th scope="col" class="${side(name)}">${name}</th>`);
  const body = rows.map((row, i) => {
    const cells = row.map((cell, j) => fragment`<td class="${side(header[j])}">${cell}</td>`);
    return fragment`<tr class="${tones[i] ?? "plain"}">${cells}</tr>\n`;
  });
  return fragment`<div class="scroll" tabindex="0" role="region" aria-label="table">
<table class="data"><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>\n`;
}

/** Widths a chart is drawn for, in px, and the height of its drawing. */
const DRAWN = [["wide", 900, 330], ["narrow", 330, 230]] as const;

/** Draws the charts of one page; parts of each are named apart from the others'. */
export class ChartDrawer {
  #drawn = 0;

  /** A chart with its title and caption, or the sentence that says why there is none. */
  async draw(chart: Chart): Promise<Html> {
    const sound = soundChart({ ...chart, columns: 1 });
    if ("sentence" in sound) return fragment`<p class="caption">${sound.sentence}.</p>`;
    const drawings: Html[] = [];
    for (const [name, width, height] of DRAWN) {
      const svg = await drawSvg(specOf(sound.chart, { theme: PAGE, width, height, titled: false }));
      drawings.push(fragment`<div class="${name}">${new Html(this.#inline(svg, chart.title))}</div>`);
    }
    const caption = sound.chart.caption.map((sentence) => `${sentence}.`).join(" ");
    return fragment`<figure><h3>${chart.title}</h3>${drawings}<figcaption>${caption}</figcaption></figure>\n`;
  }

  /** Charts, one below the other. */
  async drawAll(charts: readonly Chart[]): Promise<Html[]> {
    const drawn: Html[] = [];
    for (const chart of charts) drawn.push(await this.draw(chart));
    return drawn;
  }

  /** An SVG as part of a page: as wide as it is drawn at most, named for those who cannot see it, its names its own. */
  #inline(svg: string, title: string): string {
    const prefix = `chart${++this.#drawn}-`;
    return svg.replace(
      /^<svg[^>]*? width="([\d.]+)" height="([\d.]+)"( viewBox="[^"]*")>/,
      (_, width: string, __, box: string) => {
        return `<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="${
          escaped(title)
        }" style="max-width:${width}px"${box}>`;
      },
    ).replace(/ id="([^"]+)"/g, ` id="${prefix}$1"`).replace(/url\(#([^)]+)\)/g, `url(#${prefix}$1)`);
  }
}
