/** A rectangle of characters: braille dots (ASCII: full stops) below, text and marks above, each in a colour. */
import { paintCells, type PlotStyle, type Tone } from "./style.ts";

/** Bits of the eight dots of a braille character, by column and row. */
const DOTS = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];
const BLANK = 0x2800;

/** Stands where several marks would. */
export const BOTH = "+";

/** Columns that a mark may be moved by to be seen. */
const BESIDE = [0, 1, -1, 2, -2];

/** A point of the canvas: 0 to 1 across from the left, 0 to 1 down from the top. */
export type Spot = readonly [across: number, down: number];

export class Canvas {
  readonly #bits: Uint8Array[];
  readonly #marks: string[][];
  readonly #tones: Tone[][];
  #clashed = false;
  readonly #dots: readonly [across: number, down: number];

  constructor(readonly width: number, readonly height: number, readonly style: PlotStyle) {
    this.#bits = Array.from({ length: height }, () => new Uint8Array(width));
    this.#marks = Array.from({ length: height }, () => new Array<string>(width).fill(""));
    this.#tones = Array.from({ length: height }, () => new Array<Tone>(width).fill("plain"));
    this.#dots = style.ascii ? [1, 1] : [2, 4];
  }

  /** Whether somewhere one mark stands for several. */
  get clashed(): boolean {
    return this.#clashed;
  }

  /** The character a spot lies in. */
  cell([across, down]: Spot): [column: number, row: number] {
    return [Math.round(across * (this.width - 1)), Math.round(down * (this.height - 1))];
  }

  /** A straight line in dots; with `every` above 1, one dot of so many. */
  line(from: Spot, to: Spot, tone: Tone, every = 1): void {
    const [x0, y0] = this.#dot(from);
    const [x1, y1] = this.#dot(to);
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0))));
    for (let i = 0; i <= steps; i += every) {
      const [x, y] = [Math.round(x0 + (x1 - x0) * i / steps), Math.round(y0 + (y1 - y0) * i / steps)];
      const [across, down] = this.#dots;
      const [column, row] = [Math.floor(x / across), Math.floor(y / down)];
      this.#bits[row][column] |= this.style.ascii ? 1 : DOTS[x % 2][y % 4];
      if (this.#marks[row][column] === "") this.#tones[row][column] = tone;
    }
  }

  /** A mark over the lines; where another stands already, beside it, and where there is no room for that either, BOTH. */
  mark(spot: Spot, sign: string, tone: Tone): void {
    const [column, row] = this.cell(spot);
    const marks = this.#marks[row];
    const aside = BESIDE.map((step) => column + step).find((c) => {
      return c >= 0 && c < this.width && (marks[c] === "" || marks[c] === sign);
    });
    this.#clashed ||= aside === undefined;
    marks[aside ?? column] = aside === undefined ? BOTH : sign;
    this.#tones[row][aside ?? column] = aside === undefined ? "plain" : tone;
  }

  /** A sign in every character of a row or column that nothing else is in. */
  fillRow(row: number, sign: string, tone: Tone): void {
    for (let column = 0; column < this.width; column++) this.#fill(column, row, sign, tone);
  }

  fillColumn(column: number, sign: string, tone: Tone): void {
    for (let row = 0; row < this.height; row++) this.#fill(column, row, sign, tone);
  }

  #fill(column: number, row: number, sign: string, tone: Tone): void {
    if (this.#marks[row][column] !== "" || this.#bits[row][column] !== 0) return;
    this.#marks[row][column] = sign;
    this.#tones[row][column] = tone;
  }

  /** Whether text of this length, and a space on both sides, would hide nothing. */
  free(column: number, row: number, length: number): boolean {
    if (column < 0 || column + length > this.width || row < 0 || row >= this.height) return false;
    for (let c = Math.max(0, column - 1); c < Math.min(this.width, column + length + 1); c++) {
      if (this.#marks[row][c] !== "" || this.#bits[row][c] !== 0) return false;
    }
    return true;
  }

  text(column: number, row: number, words: string, tone: Tone): void {
    for (const [i, sign] of [...words].entries()) {
      this.#marks[row][column + i] = sign;
      this.#tones[row][column + i] = tone;
    }
  }

  /** The rows as text, coloured, without spaces at the end. */
  lines(): string[] {
    return this.#bits.map((bits, row) => {
      const signs = [...bits].map((dots, column) => {
        const mark = this.#marks[row][column];
        return mark || (dots === 0 ? " " : this.style.ascii ? "." : String.fromCharCode(BLANK + dots));
      });
      while (signs[signs.length - 1] === " ") signs.pop();
      return paintCells(this.style, signs, this.#tones[row]);
    });
  }

  /** Dots of a spot, such that they are in its character. */
  #dot([across, down]: Spot): [number, number] {
    const [wide, high] = this.#dots;
    return [across * (this.width - 1) * wide + (wide - 1) / 2, down * (this.height - 1) * high + (high - 1) / 2];
  }
}
