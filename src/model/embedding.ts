/** The rows a model starts from: token embeddings and what is added for positions. */
import { InputError } from "../errors.ts";
import { type FloatArray, floats } from "../tensor.ts";
import type { ModelLayout, PositionLayout } from "./description.ts";
import { normalise } from "./rows.ts";
import type { Weights } from "./weights.ts";

/** What runs through a model: token numbers, or rows `length × dim` where it has no embedding. */
export interface Sequence {
  readonly length: number;
  readonly tokens: Int32Array | null;
  readonly rows: FloatArray | null;
  /** One number per row, 0 = masked; null = none is. */
  readonly mask: FloatArray | null;
}

/** First rows of every sequence, `length × dim`. `input` names the file for messages. */
export async function embed(
  weights: Weights,
  layout: ModelLayout,
  sequences: readonly Sequence[],
  input: string,
): Promise<FloatArray[]> {
  const { dim, embedding, positions } = layout;
  if (!embedding) return sequences.map(({ rows }) => rows!.slice());
  const table = await weights.tensor(embedding.table);
  const place = await positionReader(weights, positions, dim);
  const type = embedding.types ? (await weights.tensor(embedding.types)).subarray(0, dim) : null;
  const norm = embedding.norm ? await weights.norm(embedding.norm) : null;
  return sequences.map(({ tokens, length }, item) => {
    const rows = floats(weights.precision, length * dim);
    const at = positions.kind === "padded" ? paddedPositions(tokens!, positions.padding) : null;
    for (let i = 0; i < length; i++) {
      const token = tokens![i];
      if (token < 0 || token >= embedding.tokens) {
        throw new InputError(
          `Cannot run "${input}": token ${token} at [${item}, ${i}] is outside the ${embedding.tokens} tokens of ` +
            `"${weights.container.path}"`,
        );
      }
      for (let c = 0; c < dim; c++) rows[i * dim + c] = table[token * dim + c] + place(at?.[i] ?? i, c);
      for (let c = 0; type && c < dim; c++) rows[i * dim + c] += type[c];
    }
    if (norm) normalise(norm, rows, rows, length, dim);
    return rows;
  });
}

/** Positions as RoBERTa counts them (`create_position_ids_from_input_ids` of transformers). */
function paddedPositions(tokens: Int32Array, padding: number): Int32Array {
  let seen = 0;
  return tokens.map((token) => token === padding ? padding : padding + ++seen);
}

/** Column c of what is added at position p; sums are rounded once, as adding a float64 table to float32 rows does. */
async function positionReader(
  weights: Weights,
  positions: PositionLayout,
  dim: number,
): Promise<(p: number, c: number) => number> {
  if (positions.kind === "none") return () => 0;
  if (positions.kind === "axial") {
    const [first, second] = [await weights.tensor(positions.first), await weights.tensor(positions.second)];
    const columns = positions.shape[1];
    return (p, c) => first[Math.floor(p / columns) * dim + c] + second[(p % columns) * dim + c];
  }
  const table = await weights.tensor(positions.table, positions.kind === "gene2vec" ? "f64" : undefined);
  return (p, c) => table[p * dim + c];
}
