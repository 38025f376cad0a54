/**
 * Damaged and hostile files: read or refused as bad input, never another error and never slow. A few hundred each time;
 * PERFORMER_FUZZ=10000 sets the number for each kind of file, PERFORMER_FUZZ_SEED another beginning.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { InputError } from "../../src/errors.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { openSource } from "../../src/formats/mod.ts";
import { fixture } from "./support.ts";
import { joined } from "./torch_made.ts";

const RUNS = Number(process.env.PERFORMER_FUZZ ?? 300);
const SEED = Number(process.env.PERFORMER_FUZZ_SEED ?? 1);
/** Elements of a tensor that is read. */
const SMALL = 100_000;

const bases: Readonly<Record<string, readonly string[]>> = {
  "zip checkpoints": [
    "types_zip",
    "views_zip",
    "wrapped_zip",
    "parts",
    "parameters",
    "repacked",
    "unreadable",
    "big_endian",
  ]
    .map((name) => `torch/${name}.pt`),
  "legacy checkpoints": ["types_legacy", "views_legacy", "legacy_protocol4"].map((name) => `torch/${name}.pt`),
  ".safetensors": ["all.safetensors"],
  ".npz": ["stored.npz", "deflated.npz", "zip64.npz"],
};

/** Numbers from a seed (mulberry32). */
function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor(((x ^ (x >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

/** Bytes that lengths, instructions and signs are made of. */
const TELLING = [0, 1, 0x7f, 0x80, 0xff, ...joined('(.0RQ}]teuqhcbXJM\x81\x85\x86\x87\x8a\x93PK"{[]-9')];

function mutated(bytes: Uint8Array, other: Uint8Array, pick: (below: number) => number): Uint8Array {
  let copy: Uint8Array = bytes.slice();
  for (let left = 1 + pick(4); left > 0 && copy.length > 0; left--) {
    // Half of the damage goes where the structure is: the beginning and the end.
    const near = Math.min(copy.length, 2048);
    const at = [() => pick(copy.length), () => pick(near), () => copy.length - 1 - pick(near)][pick(3)]();
    const length = 1 + pick(16);
    switch (pick(7)) {
      case 0:
        copy[at] ^= 1 << pick(8);
        break;
      case 1:
        copy[at] = TELLING[pick(TELLING.length)];
        break;
      case 2:
        copy.fill([0, 0xff][pick(2)], at, at + [4, 8][pick(2)]);
        break;
      case 3:
        copy = joined(copy.subarray(0, at), copy.subarray(at + length));
        break;
      case 4:
        copy = joined(copy.subarray(0, at), Uint8Array.from({ length }, () => pick(256)), copy.subarray(at));
        break;
      case 5: {
        const from = pick(other.length);
        copy = joined(copy.subarray(0, at), other.subarray(from, from + pick(200)), copy.subarray(at + pick(200)));
        break;
      }
      default:
        if (pick(4) === 0) copy = copy.subarray(0, at).slice();
        else copy = joined(copy.subarray(0, at), copy.subarray(Math.max(0, at - length)));
    }
  }
  return copy;
}

/** Opens and reads what is small; returns how many tensors were read and how many were refused. */
async function outcome(bytes: Uint8Array): Promise<{ read: number; refused: number }> {
  let [read, refused] = [0, 0];
  try {
    await using container = await openSource(memoryBytes(bytes, "fuzz.pt"));
    for (const { name, shape } of container.members.slice(0, 40)) {
      if (!(shape.reduce((product, n) => product * n, 1) <= SMALL)) continue;
      try {
        await container.readAll(name, "f64");
        for await (const piece of container.bytes(name)) if (piece.length === 0) throw new Error("an empty piece");
        read++;
      } catch (error) {
        if (!(error instanceof InputError)) throw error;
        refused++;
      }
    }
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    refused++;
  }
  return { read, refused };
}

describe.each(Object.entries(bases))("%s", (_, files) => {
  test(`${RUNS} damaged copies are read or refused`, async () => {
    const originals = files.map((file) => new Uint8Array(readFileSync(fixture(file))));
    const total = { read: 0, refused: 0 };
    let slowest = 0;
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED * 1_000_003 + run;
      const pick = random(seed);
      const bytes = mutated(originals[run % originals.length], originals[pick(originals.length)], pick);
      const start = performance.now();
      try {
        const { read, refused } = await outcome(bytes);
        total.read += read;
        total.refused += refused;
      } catch (error) {
        throw new Error(`seed ${seed} of ${files[run % files.length]}: ${error}`, { cause: error });
      }
      const time = performance.now() - start;
      if (time > 2000) throw new Error(`seed ${seed} of ${files[run % files.length]}: ${time} ms`);
      slowest = Math.max(slowest, time);
    }
    if (process.env.PERFORMER_FUZZ) console.log(RUNS, "runs", total, "slowest", Math.ceil(slowest), "ms");
    expect(Math.min(total.read, total.refused)).toBeGreaterThan(0); // the damage does something, and not always
  }, Math.max(60_000, RUNS * 50));
});
