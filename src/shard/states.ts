/**
 * States of a plan as files: which shards a file is of stands in the file, its name only says where to look. A folder is looked at by headers,
 * which is cheap; numbers are checked when they are added up.
 */
import { join } from "node:path";
import type { GivenProjection } from "../attention.ts";
import { listFolder } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import type { RowRange } from "../tensor.ts";
import { readState, STATE_SUFFIX, writeState } from "../state_file.ts";
import { emptyLike, fingerprintOf, mergeStates, type StoredState, storedState } from "../stored_state.ts";
import type { State } from "../state.ts";
import { attentionOf, shardCount, shardName, type ShardPlan, type StatesPlan } from "./plan.ts";

/** The key of `StateFile.notes` that says whose state it is. */
const NOTE = "shard";

/** States of a plan as files; `S` is one that was read. */
export interface StateFiles<S> {
  /** The state of some shards, with all checks. Throws InputError for a file that is not just that. */
  read(path: string, shards: RowRange): Promise<S & { readonly bytes: number }>;
  /** Writes it under a temporary name and renames it; returns its size in bytes. */
  write(path: string, shards: RowRange, state: S): Promise<number>;
  /** One of the same kind that has seen no key. */
  empty(like: S): S;
  /** Both as one, `later` behind `earlier`. */
  add(earlier: S, later: S): Promise<S>;
}

/** Whose state a file holds: the keys of shards `start` to `end − 1` of a plan. */
export interface Claim extends RowRange {
  /** Its id. */
  readonly plan: string;
}

/** One shard, all of them, or those before one. */
export const oneShard = (id: number): RowRange => ({ start: id, end: id + 1 });
export const allShards = (plan: StatesPlan): RowRange => ({ start: 0, end: shardCount(plan) });
export const shardsBefore = (id: number): RowRange => ({ start: 0, end: id });

/** What the metadata of a file say of whose state it is. */
export const noteOf = (plan: StatesPlan, { start, end }: RowRange): Readonly<Record<string, string>> => ({
  [NOTE]: JSON.stringify({ plan: plan.id, start, end }),
});

/** What a note says; null where it is none. */
function claimOf(note: string | undefined): Claim | null {
  if (note === undefined) return null;
  try {
    const { plan, start, end } = JSON.parse(note) as Claim;
    const whole = [start, end].every((value) => Number.isSafeInteger(value) && value >= 0);
    return typeof plan === "string" && whole ? { plan, start, end } : null;
  } catch {
    return null;
  }
}

/** Rows of keys of some shards. */
export const rowsOf = ({ shards }: StatesPlan, { start, end }: RowRange): number =>
  shards.keys[end] - shards.keys[start];

/** A state of a plan. Throws InputError where this program makes other features of the plan than the one that made it. */
export function stateOf(
  plan: ShardPlan,
  given: GivenProjection | null,
  state: State,
  shards: RowRange,
  path: string,
): StoredState {
  const stored = storedState(attentionOf(plan, given), plan.sizes, plan.fit, {
    path,
    rows: rowsOf(plan, shards),
    state,
  });
  if (fingerprintOf(stored) === plan.fingerprint) return stored;
  throw new InputError(
    `Cannot use plan "${plan.path}": performer ${plan.version}, which made it, computes other features; plan again, or use that version`,
  );
}

/** The states of a plan of one attention. */
export const attentionStates = (plan: ShardPlan): StateFiles<StoredState> => ({
  async read(path, shards) {
    const stored = await readState(path);
    requireClaim(path, stored.notes, plan, shards);
    if (stored.fingerprint !== plan.fingerprint || stored.rows !== rowsOf(plan, shards)) {
      throw new InputError(`Cannot use state "${path}": its settings or rows are not those of "${plan.path}"`);
    }
    return stored;
  },
  write: (path, shards, state) => writeState(path, state, noteOf(plan, shards)),
  empty: emptyLike,
  add: (earlier, later) => mergeStates([earlier, later]),
});

/** Throws InputError where the metadata of a state do not say that it is of these shards. */
export function requireClaim(
  path: string,
  metadata: Readonly<Record<string, string>>,
  plan: StatesPlan,
  shards: RowRange,
): void {
  const claim = claimOf(metadata[NOTE]);
  const other = claim ? whyOther(plan, shards, claim) : "it says not which shards it is of";
  if (other) throw new InputError(`Cannot use state "${path}": ${other}`);
}

/** Why a claim is not one to these shards; null where it is. */
function whyOther(plan: StatesPlan, { start, end }: RowRange, claim: Claim): string | null {
  if (claim.plan !== plan.id) return `it is of another plan than "${plan.path}"`;
  if (claim.start === start && claim.end === end) return null;
  return `it is of shards ${said(claim)}, expected ${said({ start, end })}`;
}

const said = ({ start, end }: RowRange): string =>
  end === start ? "none" : end === start + 1 ? String(start) : `${start} to ${end - 1}`;

/** How a shard's file is. */
export type Standing = "done" | "missing" | "damaged" | "foreign" | "double";

/** What a folder holds of a plan. Files are named without the folder. */
export interface Survey {
  readonly folder: string;
  /** Shards by how they are; each is in one list. */
  readonly done: readonly number[];
  readonly missing: readonly number[];
  /** No state can be read of the file. */
  readonly damaged: readonly number[];
  /** Files of other plans, of other shards than their name says, and of none. */
  readonly foreign: readonly string[];
  /** Files that hold a shard which another file holds as well. */
  readonly doubles: readonly string[];
}

/** Whether all shards are there, and nothing else. */
export const isComplete = ({ missing, damaged, foreign, doubles }: Survey): boolean =>
  missing.length + damaged.length + foreign.length + doubles.length === 0;

/** Shards that have to be computed again. */
export const unfinished = ({ missing, damaged }: Survey): number[] => [...missing, ...damaged].sort((a, b) => a - b);

/** Looks at the header of every state in a folder; `of` says which shards the file of a shard holds. */
export async function surveyStates(
  plan: StatesPlan,
  folder: string,
  of: (id: number) => RowRange = oneShard,
): Promise<Survey> {
  const names = listFolder(folder).filter(({ name, isFolder }) =>
    !isFolder && name.endsWith(STATE_SUFFIX) && !name.startsWith(".")
  ).map(({ name }) => name);
  const claims = new Map<string, Claim | null>();
  for (const name of names) claims.set(name, await claimIn(join(folder, name)));
  const lists = { done: [] as number[], missing: [] as number[], damaged: [] as number[] };
  const [foreign, doubles] = [[] as string[], [] as string[]];
  for (let id = 0; id < shardCount(plan); id++) {
    const name = shardName(plan, id) + STATE_SUFFIX;
    const claim = claims.get(name);
    claims.delete(name);
    if (claim === undefined) lists.missing.push(id);
    else if (claim === null) lists.damaged.push(id);
    else if (whyOther(plan, of(id), claim) === null) lists.done.push(id);
    else {
      lists.missing.push(id);
      (claim.plan === plan.id ? doubles : foreign).push(name);
    }
  }
  for (const [name, claim] of claims) (claim?.plan === plan.id ? doubles : foreign).push(name);
  return { folder, ...lists, foreign, doubles };
}

/** What the header of a file claims; null where it cannot be read. */
async function claimIn(path: string): Promise<Claim | null> {
  try {
    await using container = await openContainer(path);
    return claimOf(container.metadata[NOTE]) ?? { plan: "", start: 0, end: 0 };
  } catch (error) {
    if (error instanceof InputError) return null;
    throw error;
  }
}

/** What became of adding up. */
export interface Merged<S> {
  /** null: some files were damaged, `damaged` says which. */
  readonly state: S | null;
  readonly damaged: readonly number[];
  /** Bytes read and written. */
  readonly bytes: { readonly read: number; readonly written: number };
}

/**
 * Adds up the states of all shards in their order, one in memory at a time. Every file is read and checked, also when one was damaged, so that
 * all that has to be computed again is known at once.
 * @param each called with the sum of all states before a shard.
 */
export async function mergeShards<S>(
  plan: StatesPlan,
  files: StateFiles<S>,
  folder: string,
  each: (id: number, before: S) => Promise<number>,
  step: (done: number) => Promise<void>,
): Promise<Merged<S>> {
  const damaged: number[] = [];
  const bytes = { read: 0, written: 0 };
  let sum: S | null = null;
  for (let id = 0; id < shardCount(plan); id++) {
    const path = join(folder, shardName(plan, id) + STATE_SUFFIX);
    let next: S & { readonly bytes: number };
    try {
      next = await files.read(path, oneShard(id));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      damaged.push(id);
      continue;
    }
    bytes.read += next.bytes;
    if (damaged.length === 0) {
      const before: S = sum ?? files.empty(next);
      bytes.written += await each(id, before);
      sum = await files.add(before, next);
    }
    await step(id + 1);
  }
  return { state: damaged.length > 0 ? null : sum, damaged, bytes };
}
