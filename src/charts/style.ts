/**
 * How all charts look: colours that colour-blind readers tell apart (Okabe and Ito 2008, yellow left out on white), and with each colour a
 * dash pattern and a shape of its own, so that a print without colours can be read too.
 */

/** Colours of one picture, or of a page where they are CSS variables that follow the reader's light or dark scheme. */
export interface Theme {
  readonly series: readonly string[];
  /** Text and axes. */
  readonly ink: string;
  /** Labels, captions and rules. */
  readonly muted: string;
  readonly grid: string;
  /** null: transparent. */
  readonly background: string | null;
  /** What lies behind text: the background, or the page's. */
  readonly halo: string;
  readonly font: string;
}

/** Names of shapes that are told apart at 7 px. */
export const SHAPES = [
  "circle",
  "square",
  "triangle-up",
  "diamond",
  "cross",
  "triangle-down",
  "triangle-right",
] as const;

/** Dash patterns: lengths of dash and gap in px; the first is a whole line. */
export const DASHES: readonly (readonly number[])[] = [
  [1, 0],
  [6, 3],
  [2, 2],
  [8, 3, 2, 3],
  [12, 3],
  [4, 2, 1, 2, 1, 2],
  [14, 4],
];

/** Okabe and Ito: blue, vermillion, bluish green, reddish purple, orange, sky blue, black. */
const OKABE_ITO = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/** Widths of its letters are those that layouts reckon with; the file of that name draws PNGs. */
const FONT = "DejaVu Sans, Verdana, Geneva, sans-serif";

/** For files: on white. */
export const PRINT: Theme = {
  series: OKABE_ITO,
  ink: "#1a1a1a",
  muted: "#555555",
  grid: "#e4e4e4",
  background: "#ffffff",
  halo: "#ffffff",
  font: FONT,
};

/** For pages: `--series-1` … `--series-7`, `--ink`, `--muted` and `--grid` of the page. */
export const PAGE: Theme = {
  series: OKABE_ITO.map((_, i) => `var(--series-${i + 1})`),
  ink: "var(--ink)",
  muted: "var(--muted)",
  grid: "var(--grid)",
  background: null,
  halo: "var(--page)",
  font: FONT,
};

/** The page's colours in a light and in a dark scheme; series by place. */
export const SCHEMES = {
  light: { series: OKABE_ITO, ink: "#1a1a1a", muted: "#5a5f66", grid: "#e3e5e8", page: "#ffffff" },
  // The same hues, lighter, so that each has a contrast of 4.5 with the dark page.
  dark: {
    series: ["#4fa8e0", "#f28e4d", "#2cc296", "#e29cc2", "#f0b93a", "#8fd0f5", "#f2f2f2"],
    ink: "#ececec",
    muted: "#a9afb7",
    grid: "#363b42",
    page: "#16181c",
  },
} as const;

/** Cells without a number. */
export const MISSING = "#b8b8b8";
