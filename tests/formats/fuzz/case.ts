/** One file of a fuzzing run, and what is asked of it. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PerformerError } from "../../../src/errors.ts";
import type { Pick } from "./random.ts";

/** Called before each thing that the program would do in one go. */
export type Step = (name: string) => void;

/** A whole file that damage begins with. */
export interface Base {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What was done to a file: "anywhere" in its bytes, "aimed" at its structure, or "forged". */
export interface Made {
  /** Name of the base. */
  readonly what: string;
  readonly how: string;
}

/** Files of one kind: how they are made and damaged, and how they are read. */
export interface Kind {
  /** What a file of it has to be called. */
  readonly file: string;
  readonly bases: readonly Base[];
  /** Damage that knows the structure; checksums no longer agree. */
  readonly aimed: (bytes: Uint8Array, pick: Pick) => Uint8Array;
  /** The same by somebody who made the checksums agree again; null: there are none. */
  readonly forged: ((bytes: Uint8Array, pick: Pick) => Uint8Array) | null;
  /**
   * Reads a file; throws for whatever is a bug. Returns in a word what became of it. Forged files may be read as what they say; others
   * with another content than their base's may not, where there are checksums.
   */
  readonly judge: (path: string, bytes: Uint8Array, step: Step, made: Made) => Promise<string>;
}

/** The bytes that `write` leaves under a name. */
export async function bytesOf(name: string, write: (path: string) => Promise<unknown>): Promise<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-"));
  try {
    await write(join(folder, name));
    return new Uint8Array(readFileSync(join(folder, name)));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What `act` gives, or null where a file is refused in words that name it. Any error that is none of the program's own is a bug. */
export async function refusedOr<T>(path: string, act: () => Promise<T>): Promise<T | null> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof PerformerError)) throw error;
    const { message } = error;
    if (!message.includes(path) || !/^Cannot /.test(message)) throw new Error(`does not name the file: ${message}`);
    if (/\.$|\bundefined\b|\[object |call stack/.test(message.replaceAll(path, ""))) {
      throw new Error(`unclear: ${message.slice(0, 500)}`);
    }
    return null;
  }
}

/** Throws where two things that ought to be one are not. */
export function requireEqual(what: string, found: unknown, wanted: unknown): void {
  const [one, other] = [found, wanted].map((value) => JSON.stringify(value));
  if (one !== other) throw new Error(`${what} is ${one?.slice(0, 300)}, not ${other?.slice(0, 300)}`);
}

/** Throws where numbers differ in a bit; NaN is like NaN. */
export function requireNumbers(what: string, found: ArrayLike<number>, wanted: ArrayLike<number>): void {
  if (found.length !== wanted.length) throw new Error(`${what} has ${found.length} numbers, not ${wanted.length}`);
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(found[i], wanted[i])) throw new Error(`${what} has ${found[i]} at ${i}, not ${wanted[i]}`);
  }
}
