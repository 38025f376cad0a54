/** Rotary positions of queries and keys. */
import type { Tile } from "../tensor.ts";
import type { RotaryLayout } from "./description.ts";
import { frequenciesOf, rotateHalfTile, rotateInterleaved } from "./rows.ts";
import { Sinusoid } from "./sinusoid.ts";
import type { Weights } from "./weights.ts";

/** How positions turn queries and keys: a table of sines and cosines by rows, or frequencies. */
export type Rotation =
  | { readonly kind: "interleaved"; readonly table: Sinusoid }
  | { readonly kind: "half-split"; readonly theta: number };

/** The rotation of a layout, for `positions` rows where its table is shorter and can be continued. */
export async function rotationOf(
  rotary: RotaryLayout | null,
  weights: Weights,
  positions = 0,
): Promise<Rotation | null> {
  if (rotary?.kind !== "interleaved") return rotary;
  const table = await weights.tensor(rotary.table);
  return { kind: "interleaved", table: new Sinusoid(rotary.table, table, table.length / rotary.positions, positions) };
}

/** Turns every head of a tile, in place. */
export function rotate(rotation: Rotation | null, tile: Tile, headDim: number): void {
  if (rotation?.kind === "interleaved") rotateInterleaved(tile, headDim, (p) => rotation.table.row(p));
  else if (rotation) rotateHalfTile(tile, frequenciesOf(headDim, rotation.theta));
}
