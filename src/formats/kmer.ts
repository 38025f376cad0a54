/**
 * Sequences as rows: a seeded k-mer embedding of residues, `--encode kmer:K[:WINDOW]`.
 *
 * Row p, head h is a sketch of the local word content around residue p:
 *
 *     y_p = Σ_{o in window(p)} Σ_{l=1…K} 0.7^l · (s_{h,l}(word of length l at o) − mean_l),     row = y_p / ‖y_p‖ · √2 · 64^{1/4}
 *
 * where s maps a word to a seeded random vector of ±1 (64 per head) and mean_l is its average over this file. Dot products of rows
 * then estimate a spectrum kernel (Leslie et al. 2002) of the two windows: positions with the same words in common attend to each
 * other. Words never cross records. The fixed norm makes mean ‖x + y‖² about 4 after the 1/√d of softmax, where random features
 * still have signal; see examples/README.md for what that does on a genome.
 *
 * Numbers are multiples of 2⁻²⁰, so running sums are exact and any cut into tiles gives the same bits.
 */
import { InputError, UsageError } from "../errors.ts";
import { threefry2x32 } from "../random.ts";
import { floats, type RowRange, type TensorInfo, type TensorSource, type Tile, type TileOptions } from "../tensor.ts";
import type { Residues, SequenceRecord } from "./fasta.ts";

export const KMER_WIDTH = 64;
const DECAY = 0.7;
const QUANTUM = 2 ** -20;
/** Words beyond this many share a vector with others by hashing. */
const MAX_WORDS = 1 << 14;
const ROW_NORM = Math.SQRT2 * KMER_WIDTH ** 0.25;
const DNA = "ACGT";
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

export interface KmerOptions {
  /** Longest word. */
  readonly k: number;
  /** Words per row. */
  readonly window: number;
  readonly heads: number;
  readonly seed: number;
}

/** Parses `kmer:6` or `kmer:6:32`; throws UsageError with the pattern otherwise. */
export function parseKmer(text: string): { k: number; window: number } {
  const match = /^kmer:(\d+)(?::(\d+))?$/.exec(text);
  const k = Number(match?.[1]);
  const window = Number(match?.[2] ?? 16);
  if (!match || k < 1 || k > 12 || window < 1 || window > 65536) {
    throw new UsageError(
      `Unknown encoding "${text}", expected kmer:K or kmer:K:WINDOW with K from 1 to 12, such as kmer:6`,
    );
  }
  return { k, window };
}

/** Rows of `KMER_WIDTH` columns per head, one per residue. */
export class KmerSource implements TensorSource {
  readonly info: TensorInfo;

  private constructor(
    path: string,
    readonly residues: Residues,
    readonly options: KmerOptions,
    readonly rows: RowRange,
    readonly words: Words,
  ) {
    const length = rows.end - rows.start;
    this.info = {
      path,
      name: "",
      dtype: "f32",
      shape: [residues.length, options.heads * KMER_WIDTH],
      rows: length,
      heads: options.heads,
      width: KMER_WIDTH,
      firstRow: rows.start,
      byteLength: length,
    };
  }

  /** Counts the words of the whole file (one pass), so that vectors can be centred. */
  static async open(path: string, residues: Residues, options: KmerOptions, rows?: RowRange): Promise<KmerSource> {
    const range = rows ?? { start: 0, end: residues.length };
    if (range.start < 0 || range.end > residues.length || range.start > range.end) {
      throw new UsageError(
        `Cannot use rows ${range.start}:${range.end} of "${path}": it has ${residues.length} residues`,
      );
    }
    return new KmerSource(path, residues, options, range, await Words.count(path, residues, options));
  }

  async *tiles(tileRows: number, options: TileOptions = {}): AsyncIterable<Tile> {
    const { heads, window } = this.options;
    const cols = heads * KMER_WIDTH;
    const range = options.range ?? { start: 0, end: this.info.rows };
    const size = Math.min(tileRows, Math.max(0, range.end - range.start)) * cols;
    const memory = options.memory ?? [floats(options.precision ?? "f32", size)];
    let turn = 0;
    const before = Math.floor(window / 2);
    const sum = new Float64Array(cols);
    for (let start = range.start; start < range.end; start += tileRows) {
      const first = this.rows.start + start;
      const last = Math.min(first + tileRows, this.rows.start + range.end);
      const data = memory[turn++ % memory.length];
      for (const record of recordsIn(this.residues, first, last)) {
        const recordEnd = record.start + record.length;
        const from = Math.max(first, record.start);
        const to = Math.min(last, recordEnd);
        if (from >= to) continue;
        // Window of row p: words that start at p − before … p − before + window − 1, inside the record.
        const low = Math.max(record.start, from - before);
        const codes = await this.words.read(this.residues, low, Math.min(recordEnd, to - before + window), recordEnd);
        sum.fill(0);
        let added = low;
        let removed = low;
        for (let p = from; p < to; p++) {
          for (const end = Math.min(recordEnd, p - before + window); added < end; added++) codes.add(added, 1, sum);
          for (const begin = p - before; removed < begin; removed++) codes.add(removed, -1, sum);
          writeRow(sum, data, (p - first) * cols, heads);
        }
      }
      yield { start, rows: last - first, cols, data: data.subarray(0, (last - first) * cols) };
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.residues[Symbol.asyncDispose]();
  }
}

/** Records that overlap residues `from … to−1`; a file may have millions. */
function* recordsIn({ records }: Residues, from: number, to: number): Generator<SequenceRecord> {
  let low = 0;
  let high = records.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (records[middle].start <= from) low = middle;
    else high = middle - 1;
  }
  for (let i = low; i < records.length && records[i].start < to; i++) yield records[i];
}

/** Each head's part scaled to ROW_NORM; rows without a known word stay 0. */
function writeRow(sum: Float64Array, data: Tile["data"], at: number, heads: number): void {
  for (let h = 0; h < heads; h++) {
    let squares = 0;
    for (let c = h * KMER_WIDTH; c < (h + 1) * KMER_WIDTH; c++) squares += sum[c] * sum[c];
    const scale = squares > 0 ? ROW_NORM / Math.sqrt(squares) : 0;
    for (let c = h * KMER_WIDTH; c < (h + 1) * KMER_WIDTH; c++) data[at + c] = sum[c] * scale;
  }
}

/** Vectors of all words up to length k, centred over one file. */
class Words {
  private constructor(
    readonly k: number,
    readonly heads: number,
    readonly letterOf: Int8Array,
    readonly letters: number,
    /** Per word length l: vectors, `buckets × heads·64`. */
    readonly tables: readonly Float64Array[],
  ) {}

  static async count(path: string, residues: Residues, options: KmerOptions): Promise<Words> {
    const dna = await looksLikeDna(residues);
    const alphabet = dna ? DNA : LETTERS;
    const letterOf = new Int8Array(256).fill(-1);
    for (let i = 0; i < alphabet.length; i++) letterOf[alphabet.charCodeAt(i)] = i;
    if (dna) letterOf["U".charCodeAt(0)] = letterOf["T".charCodeAt(0)];
    const cols = options.heads * KMER_WIDTH;
    const tables = Array.from({ length: options.k }, (_, l) => {
      return wordVectors(Math.min(MAX_WORDS, alphabet.length ** (l + 1)), l + 1, cols, options.seed);
    });
    const words = new Words(options.k, options.heads, letterOf, alphabet.length, tables);
    const counts = tables.map((table) => new Float64Array(table.length / cols));
    const piece = 1 << 20;
    for (const record of residues.records) {
      const end = record.start + record.length;
      for (let at = record.start; at < end; at += piece) {
        const codes = await words.read(residues, at, Math.min(end, at + piece), end);
        codes.countInto(counts);
      }
    }
    if (counts[0].every((count) => count === 0)) {
      throw new InputError(`Cannot encode "${path}": no letter of it is one of ${alphabet}`);
    }
    tables.forEach((table, l) => centre(table, counts[l], cols, DECAY ** (l + 1)));
    return words;
  }

  /** Word codes of positions `from … to−1`; words reach to `recordEnd` at most. */
  async read(residues: Residues, from: number, to: number, recordEnd: number): Promise<WordCodes> {
    const bytes = new Uint8Array(Math.max(0, Math.min(recordEnd, to + this.k - 1) - from));
    await residues.read(bytes, from);
    return new WordCodes(this, bytes, from, to);
  }
}

class WordCodes {
  constructor(readonly words: Words, readonly bytes: Uint8Array, readonly from: number, readonly to: number) {}

  /** Calls `visit(l, bucket)` for the words of length l + 1 that start at `position`. */
  #each(position: number, visit: (l: number, bucket: number) => void): void {
    const { letterOf, letters, k, tables, heads } = this.words;
    let code = 0;
    for (let l = 0; l < k; l++) {
      const byte = this.bytes[position - this.from + l];
      if (byte === undefined || letterOf[byte] < 0) return;
      code = code * letters + letterOf[byte];
      const buckets = tables[l].length / (heads * KMER_WIDTH);
      visit(
        l,
        letters ** (l + 1) <= MAX_WORDS
          ? code
          : threefry2x32([0, l], [Math.floor(code / 2 ** 32), code | 0])[0] % buckets,
      );
    }
  }

  add(position: number, sign: 1 | -1, sum: Float64Array): void {
    this.#each(position, (l, bucket) => {
      const table = this.words.tables[l];
      const at = bucket * sum.length;
      for (let c = 0; c < sum.length; c++) sum[c] += sign * table[at + c];
    });
  }

  countInto(counts: readonly Float64Array[]): void {
    for (let position = this.from; position < this.to; position++) {
      this.#each(position, (l, bucket) => counts[l][bucket]++);
    }
  }
}

/** ±1 vectors from Threefry bits; key (seed, word length), counter (word, column block of 64). */
function wordVectors(buckets: number, length: number, cols: number, seed: number): Float64Array {
  const table = new Float64Array(buckets * cols);
  const key: [number, number] = [seed >>> 0, (Math.floor(seed / 2 ** 32) ^ (length * 0x9e3779b9)) | 0];
  for (let bucket = 0; bucket < buckets; bucket++) {
    for (let block = 0; block < cols; block += 64) {
      const bits = threefry2x32(key, [bucket, block]);
      for (let c = 0; c < 64; c++) table[bucket * cols + block + c] = (bits[c >> 5] >>> (c & 31)) & 1 ? 1 : -1;
    }
  }
  return table;
}

/** Subtracts the count-weighted mean, applies the decay and rounds to the quantum. */
function centre(table: Float64Array, counts: Float64Array, cols: number, decay: number): void {
  const mean = new Float64Array(cols);
  const total = counts.reduce((sum, count) => sum + count, 0);
  for (let b = 0; b < counts.length; b++) {
    if (counts[b] > 0) { for (let c = 0; c < cols; c++) mean[c] += table[b * cols + c] * (counts[b] / total); }
  }
  for (let i = 0; i < table.length; i++) {
    table[i] = Math.round((table[i] - mean[i % cols]) * decay / QUANTUM) * QUANTUM;
  }
}

/** Nucleotides: nine of ten of the first residues are ACGTUN. */
async function looksLikeDna(residues: Residues): Promise<boolean> {
  const head = new Uint8Array(Math.min(4096, residues.length));
  await residues.read(head, 0);
  const nucleotides = head.filter((byte) => "ACGTUN".includes(String.fromCharCode(byte))).length;
  return nucleotides >= 0.9 * head.length;
}
