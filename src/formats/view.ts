/** Shapes of files looked at as rows × heads × width. */
import { InputError, UsageError } from "../errors.ts";
import type { RowRange } from "../tensor.ts";

/** One dimension of a stored tensor: what it counts, how many, and how many elements apart neighbours stand. */
export interface Axis {
  readonly role: "row" | "head" | "col";
  readonly size: number;
  readonly stride: number;
}

/** How the axes of a file are meant. */
export interface TensorView {
  /** Splits the columns of `[L, D]`; for 3 and 4 axes it must agree with the file. */
  readonly heads?: number;
  /** Order of the axes of `[·, ·, d]` and `[B, ·, ·, d]`: heads first (default) or rows first. */
  readonly layout?: "hld" | "lhd";
  /** Only these rows of the file. */
  readonly rows?: RowRange;
}

/** Axes that a stored tensor may have: as many as numpy and torch allow. */
export const MAX_RANK = 64;

/** Axes in the order of a tile: the row axis, head axes outermost first, the column axis. */
export interface RowView {
  readonly axes: readonly Axis[];
  readonly rows: number;
  readonly heads: number;
  readonly width: number;
  readonly firstRow: number;
}

/** Elements between neighbours along each axis, in C or Fortran order. */
export function strides(shape: readonly number[], order: "C" | "F"): number[] {
  const result = new Array<number>(shape.length);
  let step = 1;
  for (let i = 0; i < shape.length; i++) {
    const axis = order === "F" ? i : shape.length - 1 - i;
    result[axis] = step;
    step *= shape[axis];
  }
  return result;
}

/**
 * The view of a shape: `[L]`, `[L, D]`, `[H, L, d]` or `[L, H, d]`, `[B, H, L, d]` or `[B, L, H, d]` (batch × heads are
 * heads). `order` may be the strides themselves. `label` names the tensor in errors. Throws InputError for other shapes, UsageError for a view that cannot be.
 */
export function rowView(
  shape: readonly number[],
  order: "C" | "F" | readonly number[],
  view: TensorView,
  label: string,
): RowView {
  const step = typeof order === "string" ? strides(shape, order) : order;
  const axis = (role: Axis["role"], i: number): Axis => ({ role, size: shape[i], stride: step[i] });
  const rank = shape.length;
  if (rank === 0 || rank > 4) {
    const what = rank === 0 ? "it is a single number" : `it has ${rank} axes [${shape.join(", ")}]`;
    throw new InputError(`Cannot read rows of ${label}: ${what}, expected [L, D], [H, L, d] or [B, H, L, d]`);
  }
  let row: Axis;
  let heads: Axis[];
  let col: Axis;
  if (rank === 1) {
    row = axis("row", 0);
    col = { role: "col", size: 1, stride: 1 };
    heads = splitColumns(col, view.heads, label).heads;
  } else if (rank === 2) {
    row = axis("row", 0);
    ({ heads, col } = splitColumns(axis("col", 1), view.heads, label));
  } else {
    const [h, l] = view.layout === "lhd" ? [rank - 2, rank - 3] : [rank - 3, rank - 2];
    row = axis("row", l);
    heads = rank === 4 ? [axis("head", 0), axis("head", h)] : [axis("head", h)];
    col = axis("col", rank - 1);
    const all = heads.reduce((product, head) => product * head.size, 1);
    if (view.heads !== undefined && view.heads !== all && view.heads !== shape[h]) {
      throw new UsageError(
        `Cannot take ${view.heads} heads of ${label}: shape [${shape.join(", ")}] read as ${rank === 4 ? "B," : ""}${
          view.layout === "lhd" ? "L,H,d" : "H,L,d"
        } has ${all}; leave --heads out or change --layout`,
      );
    }
  }
  const headCount = heads.reduce((product, head) => product * head.size, 1);
  if (headCount * col.size === 0) {
    throw new InputError(`Cannot read rows of ${label}: shape [${shape.join(", ")}] has no columns`);
  }
  const { start, end } = view.rows ?? { start: 0, end: row.size };
  if (!(Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end && end <= row.size)) {
    throw new UsageError(`Cannot take rows ${start}:${end} of ${label}: it has ${row.size} rows`);
  }
  return { axes: [row, ...heads, col], rows: end - start, heads: headCount, width: col.size, firstRow: start };
}

function splitColumns(col: Axis, heads = 1, label: string): { heads: Axis[]; col: Axis } {
  if (!Number.isInteger(heads) || heads < 1 || col.size % heads !== 0) {
    throw new UsageError(`Cannot split ${label} in ${heads} heads: its ${col.size} columns are no multiple of that`);
  }
  const width = col.size / heads;
  return { heads: [{ role: "head", size: heads, stride: width * col.stride }], col: { ...col, size: width } };
}
