/** Who computes what: heads first, then rows (or, where rows depend on each other, features). Pure. */

/** Rows of a kernel block; pieces of rows start at multiples of it. */
export const BLOCK = 64;

/** Half-open range. */
export interface Range {
  readonly from: number;
  readonly to: number;
}

/** One head over some rows: what a thread does in one go. */
export interface RowTask {
  readonly head: number;
  readonly rows: Range;
  /** Which piece of the rows. */
  readonly piece: number;
}

/** Tasks per thread, so that the last one to finish is waited for only shortly. */
const TASKS_PER_THREAD = 4;

/** Pieces of rows: 1 when the heads share out evenly among the threads. */
export function rowPieces(heads: number, threads: number): number {
  return heads % threads === 0 ? 1 : threads;
}

/** Cuts `total` into `parts` ranges of multiples of `unit`, as even as that allows; some may be empty. */
export function cut(total: number, parts: number, unit: number): Range[] {
  const units = Math.ceil(total / unit);
  const at = (part: number) => Math.min(total, Math.floor(part * units / parts) * unit);
  return Array.from({ length: parts }, (_, part) => ({ from: at(part), to: at(part + 1) }));
}

/** Every head over every piece of the rows; some pieces may be empty. */
export function rowTasks(heads: number, rows: number, pieces: number): RowTask[] {
  return cut(rows, pieces, BLOCK).flatMap((range, piece) => {
    return Array.from({ length: heads }, (_, head) => ({ head, rows: range, piece }));
  });
}

/** Tasks over rows whose results nothing joins afterwards: as many as threads can share evenly. */
export function freeRowTasks(heads: number, rows: number, threads: number): RowTask[] {
  const tasks = rowTasks(heads, rows, Math.ceil(TASKS_PER_THREAD * threads / heads));
  return tasks.filter((task) => task.rows.from < task.rows.to);
}

/** A causal piece first sums the keys of those before it: worth it where threads would be idle for more than a sixth of the time. */
export function causalPieces(heads: number, threads: number): number {
  return Math.ceil(heads / threads) * threads > 1.2 * heads ? threads : 1;
}

/** Some features of one key head: what a thread carries through a causal tile. */
export interface Unit {
  readonly head: number;
  readonly piece: number;
  /** Projections of the unit. */
  readonly projections: Range;
}

/**
 * Units of a causal pass. Rows of a head depend on each other, so heads are cut by features, in whole panels, when threads would stay
 * idle or uneven; the pieces of a head are joined afterwards as parts of one softmax are.
 */
export function units(heads: number, projections: number, panel: number, threads: number): Unit[] {
  const panels = Math.ceil(projections / panel);
  const wanted = threads / greatestDivisor(heads, threads);
  const pieces = cut(projections, Math.min(wanted, panels), panel);
  return Array.from({ length: heads }, (_, head) => {
    return pieces.map((range, piece): Unit => ({ head, piece, projections: range }));
  }).flat();
}

function greatestDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestDivisor(b, a % b);
}
