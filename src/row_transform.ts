/** What becomes of queries and keys before feature maps see them, as data; transformed.ts applies it. Raw units, per key head. */
export type RowTransform =
  | {
    /** x → T x and y → T⁻¹ (y − g): queries of a head are transformed as the key head they read. */
    readonly kind: "diagonal" | "dense";
    /** T and T⁻¹, `kvHeads × d` or `kvHeads × d × d`; null: identity (diagonal). */
    readonly queries: Float64Array | null;
    readonly keys: Float64Array | null;
    /** g, `kvHeads × d`. */
    readonly shift: Float64Array;
  }
  | {
    /** x_i → [x_i sin θ_i, x_i cos θ_i], θ_i = π i / (2 · length), rows counted from 1; for queries and keys alike. */
    readonly kind: "angular";
    readonly length: number;
  };
