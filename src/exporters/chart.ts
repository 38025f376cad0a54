/** Curves on two logarithmic axes, in characters: braille dots or ASCII for the lines, a letter at every point. */

export interface Curve {
  readonly label: string;
  /** (x, y), both above 0, by growing x. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface ChartOptions {
  /** Characters of the drawing, without the labels. */
  readonly width: number;
  readonly height: number;
  readonly ascii: boolean;
}

/** Bits of the eight dots of a braille character, by column and row. */
const DOTS = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BLANK = 0x2800;

/** Positions from 0 to 1 on a logarithmic axis; the middle where all values are one. */
class LogAxis {
  readonly low: number;
  readonly high: number;

  constructor(values: readonly number[]) {
    this.low = Math.min(...values);
    this.high = Math.max(...values);
  }

  at(value: number): number {
    return this.high > this.low ? Math.log(value / this.low) / Math.log(this.high / this.low) : 0.5;
  }
}

/** 16384 → "16k", 81200 → "81k", 1048576 → "1M": at most four characters. */
function short(value: number): string {
  const power = value >= 1e9 ? 3 : value >= 1e6 ? 2 : value >= 1e3 ? 1 : 0;
  const scaled = value / 1000 ** power;
  return `${scaled < 10 && power > 0 ? Number(scaled.toFixed(1)) : Math.round(scaled)}${["", "k", "M", "G"][power]}`;
}

/** A chart of several lines; "" without points. */
export function drawChart(curves: readonly Curve[], { width, height, ascii }: ChartOptions): string {
  const drawn = curves.filter(({ points }) => points.length > 0);
  if (drawn.length === 0 || width < 10) return "";
  const x = new LogAxis(drawn.flatMap(({ points }) => points.map(([value]) => value)));
  const y = new LogAxis(drawn.flatMap(({ points }) => points.map(([, value]) => value)));
  const [across, down] = ascii ? [1, 1] : [2, 4]; // dots in a character
  const bits = Array.from({ length: height }, () => new Uint8Array(width));
  const marks = Array.from({ length: height }, () => new Array<string>(width).fill(""));
  const place = ([px, py]: readonly [number, number]): [number, number] => [
    x.at(px) * (width * across - 1),
    (1 - y.at(py)) * (height * down - 1),
  ];
  for (const [index, { points }] of drawn.entries()) {
    const places = points.map(place);
    for (let i = 1; i < places.length; i++) {
      line(places[i - 1], places[i], (column, row) => {
        const [c, r] = [Math.floor(column / across), Math.floor(row / down)];
        bits[r][c] |= ascii ? 1 : DOTS[column % 2][row % 4];
      });
    }
    for (const [column, row] of places) {
      marks[Math.floor(Math.round(row) / down)][Math.floor(Math.round(column) / across)] ||= letter(index);
    }
  }
  const lines = bits.map((row, r) => {
    const text = [...row].map((dots, c) => {
      return marks[r][c] || (dots === 0 ? " " : ascii ? "." : String.fromCharCode(BLANK + dots));
    }).join("");
    const scale = r === 0 ? short(y.high) : r === height - 1 ? short(y.low) : "";
    return `  ${scale.padStart(5)} ${ascii ? "|" : "│"}${text.trimEnd()}`;
  });
  const [from, to] = [short(x.low), short(x.high)];
  return [
    "  tokens/s over L, both logarithmic",
    ...lines,
    `  ${" ".repeat(6)}${ascii ? "+" + "-".repeat(width) : "└" + "─".repeat(width)}`,
    `  ${" ".repeat(7)}${from}${to.padStart(width - from.length)}`,
    ...drawn.map(({ label }, index) => `  ${letter(index).padStart(5)} ${label}`),
  ].join("\n") + "\n";
}

const letter = (index: number) => String.fromCharCode("A".charCodeAt(0) + index % 26);

/** Visits the dots of a straight line. */
function line(
  [x0, y0]: readonly [number, number],
  [x1, y1]: readonly [number, number],
  visit: (column: number, row: number) => void,
): void {
  const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0))));
  for (let i = 0; i <= steps; i++) {
    visit(Math.round(x0 + (x1 - x0) * i / steps), Math.round(y0 + (y1 - y0) * i / steps));
  }
}
