/**
 * Queries, keys and values of real sequences of any length, in memory: what studies of growth with L run on (clusters_growth.ts).
 *
 * - a tensor file with members q, k, v, or a folder with q.npy, k.npy, v.npy
 * - FASTA, through `--encode kmer:K`
 * - text, through the first layer of a trained softmax Transformer (tests/fixtures/heads): there q, k and v of a row depend on its
 *   byte alone, up to the rotation by its position, so that the rows of 600 bytes give those of any text with the same bytes
 * - text, through the first layers of a byte-level checkpoint, as one sequence
 */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Backend } from "../src/backend.ts";
import { openResidues } from "../src/formats/fasta.ts";
import { KmerSource, parseKmer } from "../src/formats/kmer.ts";
import { openContainer } from "../src/formats/mod.ts";
import { Inputs } from "../src/inputs.ts";
import { parseConfiguration } from "../src/model/arguments.ts";
import type { ModelLayout } from "../src/model/description.ts";
import { Embedding } from "../src/model/embedding.ts";
import { forwardSteps } from "../src/model/forward.ts";
import { openLayerSources } from "../src/model/layer_sources.ts";
import { recognise } from "../src/model/recognise.ts";
import { rotationOf } from "../src/model/rotation.ts";
import { frequenciesOf, normalise, shiftTokens } from "../src/model/rows.ts";
import { Weights } from "../src/model/weights.ts";
import { type RowRange, type TensorInfo, type TensorSource, type Tile, type TileOptions } from "../src/tensor.ts";
import { Stopwatch } from "../src/timing.ts";

/** Trained heads and the text that they were recorded on. */
const HEADS = fileURLToPath(new URL("../tests/fixtures/heads/", import.meta.url));

/** Rows of one head in memory, as a tensor. */
export class MemoryRows implements TensorSource {
  readonly info: TensorInfo;

  constructor(readonly data: Float32Array, width: number, path: string) {
    const rows = data.length / width;
    const [shape, byteLength] = [[rows, width], data.byteLength];
    this.info = { path, name: "", dtype: "f32", shape, rows, heads: 1, width, firstRow: 0, byteLength };
  }

  async *tiles(tileRows: number, { range }: TileOptions = {}): AsyncIterable<Tile> {
    const { rows, width: cols } = this.info;
    const { start: first, end } = range ?? { start: 0, end: rows };
    for (let start = first; start < end; start += tileRows) {
      const size = Math.min(tileRows, end - start);
      yield { start, rows: size, cols, data: this.data.subarray(start * cols, (start + size) * cols) };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** What rows to make. */
export interface RowsWish {
  readonly path: string;
  /** `kmer:K` for FASTA. */
  readonly encode?: string;
  /** A folder of tests/fixtures/heads for text. */
  readonly trained?: string;
  /** A checkpoint for text, its configuration, and the layer whose queries, keys and values are wanted. */
  readonly weights?: string;
  readonly config?: string;
  readonly layer: number;
  readonly head: number;
  /** As many rows as there are, at most. */
  readonly rows: number;
}

type Three = readonly [MemoryRows, MemoryRows, MemoryRows];

/** One head's rows; q, k and v are one tensor where they are the same. */
export async function openRows(wish: RowsWish, backend: Backend): Promise<Inputs> {
  const { path, encode, trained, weights } = wish;
  if (encode) {
    await using residues = await openResidues(path);
    const rows = Math.min(wish.rows, residues.length);
    const options = { ...parseKmer(encode), heads: wish.head + 1, seed: 0 };
    const source = await KmerSource.open(path, residues, options, { start: 0, end: rows });
    const same = await headOf(source, wish.head, { start: 0, end: rows });
    return new Inputs(same, same, same, null);
  }
  const [q, k, v] = trained
    ? await rowsOfBytes(await readFile(path), trained, wish)
    : weights
    ? await rowsOfLayer(await readFile(path), weights, wish, backend)
    : await rowsOfTensors(path, wish);
  return new Inputs(q, k, v, null);
}

/** Some rows of one head of a tensor. */
async function headOf(source: TensorSource, head: number, range: RowRange): Promise<MemoryRows> {
  const { width, heads, path } = source.info;
  const out = new Float32Array((range.end - range.start) * width);
  for await (const tile of source.tiles(4096, { range })) {
    for (let i = 0; i < tile.rows; i++) {
      const at = (i * heads + head) * width;
      out.set(tile.data.subarray(at, at + width), (tile.start - range.start + i) * width);
    }
  }
  return new MemoryRows(out, width, path);
}

async function rowsOfTensors(path: string, { head, rows }: RowsWish): Promise<Three> {
  const separate = existsSync(join(path, "q.npy"));
  const out: MemoryRows[] = [];
  for (const role of ["q", "k", "v"]) {
    await using container = await openContainer(separate ? join(path, `${role}.npy`) : path);
    await using source = await container.open(separate ? container.members[0].name : role);
    out.push(await headOf(source, head, { start: 0, end: Math.min(rows, source.info.rows) }));
  }
  return [out[0], out[1], out[2]];
}

/** The bytes' own rows of a trained first layer, turned to their positions in this text. Bytes that it never met are left out. */
async function rowsOfBytes(text: Uint8Array, name: string, { path, head, rows }: RowsWish): Promise<Three> {
  const [q, k, v] = await rowsOfTensors(join(HEADS, name), { path: "", layer: 0, head, rows: Infinity });
  const recorded = await readFile(join(HEADS, "text.txt"));
  const d = q.info.width;
  const frequencies = frequenciesOf(d);
  // A masked row has the same values whatever its byte is.
  const owners = new Map<string, Set<number>>();
  const keyOf = (row: number) => v.data.subarray(row * d, (row + 1) * d).join();
  recorded.forEach((byte, row) => owners.set(keyOf(row), (owners.get(keyOf(row)) ?? new Set()).add(byte)));
  const known = new Map<number, number>();
  recorded.forEach((byte, row) => owners.get(keyOf(row))!.size === 1 && !known.has(byte) && known.set(byte, row));
  const kept = text.filter((byte) => known.has(byte)).subarray(0, rows);
  const turned = ({ data: from }: MemoryRows, rotary: boolean) => {
    const out = new Float32Array(kept.length * d);
    for (let i = 0; i < kept.length; i++) {
      const row = known.get(kept[i])!;
      if (!rotary) out.set(from.subarray(row * d, (row + 1) * d), i * d);
      for (let j = 0; rotary && j < d / 2; j++) {
        const angle = (i - row) * frequencies[j];
        const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
        const [a, b] = [from[row * d + 2 * j], from[row * d + 2 * j + 1]];
        out[i * d + 2 * j] = a * cos - b * sin;
        out[i * d + 2 * j + 1] = b * cos + a * sin;
      }
    }
    return new MemoryRows(out, d, path);
  };
  return [turned(q, true), turned(k, true), turned(v, false)];
}

/** What enters a layer of a byte-level model when the text runs through the layers before it as one sequence. */
async function rowsOfLayer(text: Uint8Array, path: string, wish: RowsWish, backend: Backend): Promise<Three> {
  const { config, layer, head } = wish;
  await using container = await openContainer(path);
  const configuration = config ? parseConfiguration(config, await readFile(config, "utf8")) : null;
  const { layout, rules } = recognise(path, container.members, { configuration });
  if (!layout?.embedding) throw new Error(`"${path}" has no embedding of tokens`);
  const weights = new Weights(container, "f32");
  const tokens = Int32Array.from(text.subarray(0, wish.rows));
  const length = tokens.length;
  const embedding = await Embedding.open(weights, layout, length);
  const first = embedding.rows(tokens, 0, (token) => new Error(`"${path}" has no token ${token}`));
  const rotation = await rotationOf(layout.rotary, weights, length);
  const before: ModelLayout = { ...layout, embedding: null, maxLength: null, layers: layout.layers.slice(0, layer) };
  let x = first;
  if (layer > 0) {
    const sequences = [{ length, tokens: null, rows: first, mask: null }];
    const numerics = { rotation: () => rotation };
    const pass = { container, layout: before, rules, backend, sequences, numerics, input: wish.path, outputs: false };
    for await (const step of forwardSteps(pass)) if (step.kind === "layer") x = step.streams[0].at(-1)!;
  }
  const { norm, shift } = layout.layers[layer].attention;
  const rows = x.slice();
  if (norm) normalise(await weights.norm(norm), x, rows, length, layout.dim);
  if (shift) shiftTokens(rows, length, layout.dim, layout.causal, null);
  const source = new MemoryRows(rows as Float32Array, layout.dim, wish.path);
  const options = { backend, weights, rotation, tileRows: 4096, watch: new Stopwatch() };
  await using sources = await openLayerSources(layout.layers[layer].attention, source, options);
  const all = { start: 0, end: length };
  return [await headOf(sources.q, head, all), await headOf(sources.k, head, all), await headOf(sources.v, head, all)];
}
