/** Arrays of tests/golden/fast_attention: a folder is a case. */
import { readFileSync } from "node:fs";
import type { Tile } from "../../src/tensor.ts";

export const CASES = new URL("./fast_attention/", import.meta.url);

/** A little-endian, C-ordered float .npy file. */
export function readArray(name: string, file: string): { shape: number[]; data: Float64Array } {
  const bytes = readFileSync(new URL(`${name}/${file}.npy`, CASES));
  const end = 10 + bytes.readUInt16LE(8);
  const header = bytes.subarray(10, end).toString("latin1");
  const shape = /'shape': \(([^)]*)\)/.exec(header)![1].split(",").filter((part) => part.trim()).map(Number);
  const double = header.includes("<f8");
  const body = bytes.buffer.slice(bytes.byteOffset + end, bytes.byteOffset + bytes.byteLength);
  return { shape, data: Float64Array.from(double ? new Float64Array(body) : new Float32Array(body)) };
}

/** `b × h × L × d` as rows × (b·h·d). */
export function asTile({ shape: [b, h, rows, d], data }: { shape: number[]; data: Float64Array }): Tile {
  const heads = b * h;
  const tile = new Float64Array(data.length);
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < rows; i++) {
      tile.set(data.subarray((head * rows + i) * d, (head * rows + i + 1) * d), (i * heads + head) * d);
    }
  }
  return { start: 0, rows, cols: heads * d, data: tile };
}
