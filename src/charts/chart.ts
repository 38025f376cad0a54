/** A chart as data: what is drawn, in which units, and what must be said of it. How it looks is spec.ts and style.ts. */

/** A quantity along one side of a panel, or behind its colours. */
export interface Axis {
  /** With its unit: "time (s)", "L (rows)"; a quantity without one says so: "relative L2 error (1 = as large as the output)". */
  readonly title: string;
  readonly scale: "linear" | "log";
  /** Where the scale begins and ends; from the data when left out. */
  readonly domain?: readonly [number, number];
  /** Values that are labelled; chosen from the scale when left out. */
  readonly ticks?: readonly number[];
}

/** The axis of lengths that were measured. */
export const lengthAxis = (lengths: readonly number[]): Axis => ({
  title: "length L (rows)",
  scale: "log",
  ticks: [...new Set(lengths)].sort((a, b) => a - b),
});

/** One point; `low` and `high` make a band or whiskers around it. */
export interface Point {
  readonly x: number;
  readonly y: number;
  readonly low?: number;
  readonly high?: number;
  /** Told when the pointer rests on it, and written beside it where `labelled`. */
  readonly label?: string;
}

/** Points of one name, one colour, one dash pattern and one shape. */
export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
  /** How they are drawn: joined (with marks at few points), or marks alone. */
  readonly draw: "line" | "marks" | "line and marks";
  /** `low` and `high` as a band (for lines) or as whiskers. */
  readonly spread?: "band" | "whiskers";
  /** Its place in the order of styles; its place among the series when left out: panels of one picture share styles so. */
  readonly style?: number;
  /** Write the labels of points beside them. */
  readonly labelled?: boolean;
}

/** A straight line across a panel that others are judged by. */
export interface Rule {
  readonly axis: "x" | "y";
  readonly at: number;
  readonly label: string;
}

/** Curves and marks over two axes. */
export interface LinePanel {
  readonly kind: "lines";
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  readonly rules?: readonly Rule[];
}

/** A value per cell of a grid, and lines over it. */
export interface HeatPanel {
  readonly kind: "heat";
  readonly title: string;
  /** Centres of the cells by growing number, or names. */
  readonly columns: { readonly title: string; readonly values: readonly (number | string)[] };
  readonly rows: { readonly title: string; readonly values: readonly (number | string)[] };
  /** One number per cell, row by row; NaN where there is none, which is drawn grey. */
  readonly cells: readonly number[];
  /** "sequential" from low to high; "diverging" around `middle`. */
  readonly colour: Axis & { readonly kind: "sequential" | "diverging"; readonly middle?: number };
  /** Curves in the coordinates of numeric columns and rows. */
  readonly lines?: readonly { readonly name: string; readonly points: readonly Point[] }[];
  /** Write the value into each cell. */
  readonly labelled?: boolean;
  /** Rows grow upwards, as on an axis; downwards, as in a matrix, when left out. */
  readonly upwards?: boolean;
}

/** How many of something lie between two values. */
export interface BarPanel {
  readonly kind: "bars";
  readonly title: string;
  readonly x: Axis;
  readonly y: { readonly title: string };
  /** Neighbours, by growing `from`. */
  readonly bars: readonly { readonly from: number; readonly to: number; readonly count: number }[];
  readonly rules?: readonly Rule[];
}

export type Panel = LinePanel | HeatPanel | BarPanel;

/** A picture: panels beside or below each other, a title, and the settings in words. */
export interface Chart {
  readonly title: string;
  /** Settings, what lines and bands are, and what was left out: sentences. */
  readonly caption: readonly string[];
  readonly panels: readonly Panel[];
  /** Panels beside each other; all of them when left out. */
  readonly columns?: number;
}
