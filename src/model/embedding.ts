/** The rows a model starts from: token embeddings and what is added for positions. */
import { InputError } from "../errors.ts";
import { type FloatArray, floats } from "../tensor.ts";
import type { ModelLayout, PositionLayout } from "./description.ts";
import { normalise } from "./rows.ts";
import { Sinusoid } from "./sinusoid.ts";
import type { Norm, Weights } from "./weights.ts";

/** What runs through a model: token numbers, or rows `length × dim` where it has no embedding. */
export interface Sequence {
  readonly length: number;
  /** Position of the first row, where it is a part of a longer sequence. */
  readonly start?: number;
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
  if (!layout.embedding) return sequences.map(({ rows }) => rows!.slice());
  const embedding = await Embedding.open(weights, layout);
  return sequences.map(({ tokens, start = 0 }, item) => {
    return embedding.rows(tokens!, start, (token, at) =>
      new InputError(
        `Cannot run "${input}": token ${token} at [${item}, ${
          start + at
        }] is outside the ${embedding.tokens} tokens of ` +
          `"${weights.container.path}"`,
      ));
  });
}

/** Token and position tables of a model. */
export class Embedding {
  private constructor(
    readonly weights: Weights,
    readonly dim: number,
    readonly tokens: number,
    readonly table: FloatArray,
    /** Added to every row. */
    readonly type: FloatArray | null,
    /** Column c at position p. */
    readonly place: (p: number, c: number) => number,
    readonly norm: Norm | null,
    readonly positions: PositionLayout,
  ) {}

  /** @param positions rows that will be asked for, where more than the table of a sinusoid has */
  static async open(weights: Weights, layout: ModelLayout, positions = 0): Promise<Embedding> {
    const { dim, embedding } = layout;
    const table = await weights.tensor(embedding!.table);
    const place = await positionReader(weights, layout.positions, dim, positions);
    const type = embedding!.types ? (await weights.tensor(embedding!.types)).subarray(0, dim) : null;
    const norm = embedding!.norm ? await weights.norm(embedding!.norm) : null;
    return new Embedding(weights, dim, embedding!.tokens, table, type, place, norm, layout.positions);
  }

  /** Rows of tokens from position `start` on, `tokens × dim`; throws what `refuse` makes of a token that the table lacks. */
  rows(tokens: Int32Array, start: number, refuse: (token: number, at: number) => Error): FloatArray {
    const { dim, table, type, place, norm, positions } = this;
    const rows = floats(this.weights.precision, tokens.length * dim);
    const at = positions.kind === "padded" ? paddedPositions(tokens, positions.padding) : null;
    for (const [i, token] of tokens.entries()) {
      if (token < 0 || token >= this.tokens) throw refuse(token, i);
      const position = at?.[i] ?? start + i;
      for (let c = 0; c < dim; c++) rows[i * dim + c] = table[token * dim + c] + place(position, c);
      for (let c = 0; type && c < dim; c++) rows[i * dim + c] += type[c];
    }
    if (norm) normalise(norm, rows, rows, tokens.length, dim);
    return rows;
  }
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
  wanted: number,
): Promise<(p: number, c: number) => number> {
  if (positions.kind === "none") return () => 0;
  if (positions.kind === "axial") {
    const [first, second] = [await weights.tensor(positions.first), await weights.tensor(positions.second)];
    const columns = positions.shape[1];
    return (p, c) => first[Math.floor(p / columns) * dim + c] + second[(p % columns) * dim + c];
  }
  const stored = await weights.tensor(positions.table, positions.kind === "gene2vec" ? "f64" : undefined);
  if (positions.kind !== "sinusoid") return (p, c) => stored[p * dim + c];
  const table = new Sinusoid(positions.table, stored, dim, wanted);
  return (p, c) => {
    if (p * dim < stored.length) return stored[p * dim + c];
    const [row, at] = table.row(p);
    return row[at + c];
  };
}
