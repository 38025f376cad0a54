/** How drawings look: width, characters, colours, and words that fit. Drawings know nothing of terminals beyond this. */

export interface PlotStyle {
  /** No line of a drawing is longer, in characters. */
  readonly columns: number;
  /** Letters and signs of ASCII only, instead of braille, blocks and lines. */
  readonly ascii: boolean;
  /** ANSI colours, which only ever repeat what a letter or a shade says. */
  readonly color: boolean;
}

export type Tone = "plain" | "bold" | "dim" | "red" | "green" | "yellow" | "blue" | "magenta" | "cyan";

const CODES: Readonly<Record<Tone, readonly [on: number, off: number]>> = {
  plain: [0, 0],
  bold: [1, 22],
  dim: [2, 22],
  red: [31, 39],
  green: [32, 39],
  yellow: [33, 39],
  blue: [34, 39],
  magenta: [35, 39],
  cyan: [36, 39],
};

/** Words in a colour, where there are colours. */
export function paint({ color }: PlotStyle, tone: Tone, words: string): string {
  if (!color || tone === "plain" || words === "") return words;
  return `\x1b[${CODES[tone][0]}m${words}\x1b[${CODES[tone][1]}m`;
}

/** Characters in their colours, one colour code for a run of them. */
export function paintCells(style: PlotStyle, signs: readonly string[], tones: readonly Tone[]): string {
  let text = "";
  for (let from = 0; from < signs.length;) {
    let to = from + 1;
    while (to < signs.length && tones[to] === tones[from]) to++;
    text += paint(style, tones[from], signs.slice(from, to).join(""));
    from = to;
  }
  return text;
}

/** Narrower than this, a drawing says more in words. */
export const LEAST_COLUMNS = 36;
/** Wider drawings are no easier to read. */
const MOST_COLUMNS = 120;
/** Left margin, that of the reports. */
export const MARGIN = "  ";

/** Characters a drawing has, margins included. */
export const widthOf = ({ columns }: PlotStyle): number => Math.max(1, Math.min(MOST_COLUMNS, Math.floor(columns)));

/** Signs of our own sentences in ASCII. */
const SPELLED: Readonly<Record<string, string>> = {
  "·": "-",
  "–": "-",
  "—": "-",
  "−": "-",
  "×": "x",
  "…": "...",
  "→": "->",
  "≤": "<=",
  "≥": ">=",
  "≈": "~",
  "‖": "|",
  "√": "sqrt ",
  "φ": "phi",
  "σ": "sigma",
  "ω": "omega",
  "ε": "eps",
  "Σ": "sum",
  "∞": "inf",
  "½": "1/2",
  "¼": "1/4",
  "°": " degrees",
  "²": "^2",
  "ᵀ": "^T",
  "µ": "u",
  "μ": "u",
};

/** Text whose every character takes one column: what may be wider, narrower or obeyed by a terminal becomes "?". */
export function narrow(text: string, { ascii }: PlotStyle): string {
  // A dot between factors is a product, one between spaces parts what is said.
  const spelled = ascii
    ? text.replace(/(?<=\S)·(?=\S)/gu, ".").replace(/[^\x20-\x7e]/gu, (sign) => SPELLED[sign] ?? "?")
    : text;
  return spelled.replace(
    /[^\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0377\u0384-\u03ff\u1d40\u2010-\u2027\u2030-\u205e\u2190-\u22ff]/gu,
    "?",
  );
}

/** The beginning of text that is longer than `most`. */
export function clip(text: string, most: number, { ascii }: PlotStyle): string {
  if (text.length <= most) return text;
  const end = ascii ? "..." : "…";
  return most <= end.length ? text.slice(0, Math.max(0, most)) : text.slice(0, most - end.length) + end;
}

/** Lines of at most `width` characters, broken between words where possible. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (let word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    while (word.length > width) {
      lines.push(word.slice(0, width));
      word = word.slice(width);
    }
    line = line === "" ? word : `${line} ${word}`;
  }
  return line === "" ? lines : [...lines, line];
}

/** A sentence below a drawing, or in its place, over as many lines as it takes. */
export function sentence(text: string, style: PlotStyle, tone: Tone = "dim"): string {
  const width = widthOf(style);
  const margin = width > 2 * MARGIN.length ? MARGIN : "";
  return wrapped(narrow(text, style), width - margin.length).map((line) => `${margin}${paint(style, tone, line)}\n`)
    .join("");
}

/** A piece of a legend: a sign in a colour, and what it stands for. */
export interface LegendEntry {
  readonly sign: string;
  readonly tone: Tone;
  readonly label: string;
}

/** A legend on one line where it fits, else in columns. */
export function legend(entries: readonly LegendEntry[], style: PlotStyle, indent: number): string {
  const room = widthOf(style) - indent;
  const texts = entries.map(({ sign, label }) => clip(narrow(label, style), room - sign.length - 1, style));
  const lengths = entries.map(({ sign }, i) => sign.length + 1 + texts[i].length);
  const gap = 3;
  const all = lengths.reduce((sum, length) => sum + length + gap, -gap);
  const widest = Math.max(0, ...lengths);
  const across = all <= room ? entries.length : Math.max(1, Math.floor((room + gap) / (widest + gap)));
  let text = "";
  for (const [i, { sign, tone }] of entries.entries()) {
    const first = i % across === 0, last = i % across === across - 1 || i === entries.length - 1;
    const padding = last ? 0 : gap + (all <= room ? 0 : widest - lengths[i]);
    text += `${first ? " ".repeat(indent) : ""}${paint(style, tone, sign)} ${texts[i]}${
      last ? "\n" : " ".repeat(padding)
    }`;
  }
  return text;
}

/** Colours by which curves differ, besides their letters. */
const WHEEL: readonly Tone[] = ["cyan", "yellow", "magenta", "green", "blue", "red"];
export const toneAt = (index: number): Tone => WHEEL[index % WHEEL.length];

/** "A", "B", … of the index-th curve. */
export const letterAt = (index: number): string => String.fromCharCode("A".charCodeAt(0) + index % 26);
