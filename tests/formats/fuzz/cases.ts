/** All files of a fuzzing run, of every kind in turn: case `index` of a seed is always the same file. */
import type { Kind, Made, Step } from "./case.ts";
import { config } from "./config.ts";
import { fasta } from "./fasta.ts";
import { fileOf } from "./files.ts";
import { journal } from "./journal.ts";
import { judge } from "./judge.ts";
import { damaged } from "./mutate.ts";
import { note, plan } from "./plan.ts";
import { one, type Pick, random } from "./random.ts";
import { state } from "./state.ts";

/** Kinds but files of tensors, which files.ts makes. */
export const KINDS: Readonly<Record<string, Kind>> = { fasta, state, plan, note, journal, config };

/** Who has its turn when. */
const TURNS = [
  ..."tensors state tensors plan tensors fasta tensors state tensors plan".split(" "),
  ..."tensors journal tensors state tensors plan tensors fasta config note".split(" "),
];

/** A file and how it is judged. */
export interface Case extends Made {
  readonly kind: string;
  /** What it has to be called. */
  readonly file: string;
  readonly bytes: Uint8Array;
  /** Throws for whatever is a bug; returns in a word what became of it. */
  readonly judge: (path: string, step?: Step) => Promise<string>;
}

/** Case `index` of a seed, of one kind only where that is named. `largest` bounds what hostile ones take. */
export function caseOf(seed: number, index: number, { only = "", largest = Infinity } = {}): Case {
  const turn = Math.floor(index / TURNS.length);
  const kind = only || TURNS[index % TURNS.length];
  if (kind === "tensors") {
    // Numbered among themselves, as one in eight of them is hostile.
    const before = TURNS.slice(0, index % TURNS.length).filter((kind) => kind === "tensors").length;
    const own = only ? index : turn * TURNS.filter((kind) => kind === "tensors").length + before;
    const made = fileOf(seed, own, largest);
    const verdict = async (path: string, step?: Step) => (await judge(path, made.bytes, step)).kind;
    return { ...made, kind, file: "fuzz.bin", judge: verdict };
  }
  const pick = random(seed * 1_000_003 + index);
  const { bases, file, judge: judged } = KINDS[kind];
  const base = one(pick, bases);
  const { how, bytes } = damagedBy(KINDS[kind], base.bytes, pick);
  const made = { what: base.name, how };
  return { ...made, kind, file, bytes, judge: (path, step = () => {}) => judged(path, bytes, step, made) };
}

/** A file of a kind after damage of one sort, which `how` names. */
export function damagedBy(
  { bases, aimed, forged }: Kind,
  bytes: Uint8Array,
  pick: Pick,
): { readonly how: string; readonly bytes: Uint8Array } {
  const how = one(pick, ["anywhere", "aimed", "aimed", ...forged ? ["forged", "forged"] : []]);
  if (how === "anywhere") return { how, bytes: damaged(bytes, one(pick, bases).bytes, pick) };
  return { how, bytes: how === "forged" ? forged!(bytes, pick) : aimed(bytes, pick) };
}
