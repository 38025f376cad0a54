/** Tensors in memory where the program reads files. */
import type { FloatArray, TensorSource, Tile } from "../../src/tensor.ts";

export interface MemoryTensor extends TensorSource {
  /** How often each row was read. */
  readonly reads: Uint32Array;
}

/** `rows × (heads · width)` numbers as a source; tiles are copies, in float64 unless float32 is asked for; `lends`: in the memory it is given, as sources of files do. */
export function memoryTensor(data: ArrayLike<number>, heads: number, width: number, lends = false): MemoryTensor {
  const cols = heads * width;
  const rows = data.length / cols;
  const reads = new Uint32Array(rows);
  const info = {
    path: "memory",
    name: "",
    dtype: "f64",
    shape: [rows, cols],
    rows,
    heads,
    width,
    firstRow: 0,
  } as const;
  return {
    reads,
    info: { ...info, byteLength: 8 * data.length },
    async *tiles(tileRows, { range = { start: 0, end: rows }, precision = "f64", memory } = {}): AsyncIterable<Tile> {
      let turn = 0;
      for (let start = range.start; start < range.end; start += tileRows) {
        const end = Math.min(range.end, start + tileRows);
        for (let row = start; row < end; row++) reads[row]++;
        const numbers = Array.from({ length: (end - start) * cols }, (_, i) => data[start * cols + i]);
        const own: FloatArray = precision === "f64" ? Float64Array.from(numbers) : Float32Array.from(numbers);
        const given = lends ? memory?.[turn++ % memory.length] : undefined;
        given?.set(own);
        const tile = given?.subarray(0, own.length) ?? own;
        yield { start, rows: end - start, cols, data: tile };
      }
    },
    async [Symbol.asyncDispose]() {},
  };
}
