/**
 * What stands in a journal, field by field. Its checksum says that it is whole; that all which a run relies on has its kind and size is
 * looked at here, so that a journal of another maker ends in words and not in the middle of a run.
 */
import type { ProcessMark } from "./processes.ts";
import type { HeadFit } from "./fitted.ts";
import type { Checkpoint, JournalInput, Written } from "./run_journal.ts";
import { Fields } from "./fields.ts";

const MAX_TEXT = 1 << 16;

/** The journal of a value that was unpacked. Throws FieldError for another. */
export function writtenOf(value: unknown): Written {
  const fields = new Fields(value, "");
  const written: Written = {
    version: fields.text("version", MAX_TEXT),
    settings: settingsOf(fields),
    inputs: fields.list<unknown>("inputs", 0, 16, () => true, "inputs").map(inputOf),
    owner: ownerOf(fields.object("owner")),
    time: fields.number("time"),
    inode: fields.number("inode"),
    choice: fields.any("choice"),
    checkpoint: fields.maybe("checkpoint", () => checkpointOf(fields.object("checkpoint"))),
  };
  fields.done();
  return written;
}

function settingsOf(fields: Fields): Written["settings"] {
  const settings = fields.any("settings");
  const texts = typeof settings === "object" && settings !== null && !Array.isArray(settings) &&
    Object.values(settings).every((value) => typeof value === "string");
  if (!texts) fields.fail("settings", "texts by name");
  return settings as Written["settings"];
}

function inputOf(value: unknown, i: number): JournalInput {
  const fields = new Fields(value, `inputs[${i}]`);
  const input = {
    path: fields.text("path", MAX_TEXT),
    inode: fields.number("inode"),
    size: fields.whole("size", 0),
    changed: fields.number("changed"),
    head: fields.hash("head"),
  };
  fields.done();
  return input;
}

function ownerOf(fields: Fields): ProcessMark {
  const owner = {
    pid: fields.whole("pid", 0),
    started: fields.text("started", MAX_TEXT),
    place: fields.text("place", MAX_TEXT),
    host: fields.text("host", MAX_TEXT),
    machine: fields.text("machine", MAX_TEXT),
  };
  fields.done();
  return owner;
}

function checkpointOf(fields: Fields): Checkpoint {
  const seconds = fields.object("seconds");
  for (const phase of ["read", "compute", "write", "check", "total"]) seconds.number(phase);
  seconds.done();
  const counts = fields.object("counts");
  for (const name of ["emptyRows", "nonPositive", "recomputed"]) counts.whole(name, 0);
  if (counts.has("topPairs")) counts.whole("topPairs", 0);
  counts.done();
  const approx = fields.any("approx");
  if (!(approx instanceof Float64Array)) fields.fail("approx", "float64 numbers");
  const checkpoint = {
    tileRows: fields.whole("tileRows", 1),
    keyRows: fields.whole("keyRows", 0),
    rows: fields.whole("rows", 0),
    counts: fields.any("counts") as Checkpoint["counts"],
    seconds: fields.any("seconds") as Checkpoint["seconds"],
    fit: fitOf(fields),
    state: stateOf(fields),
    mean: fields.any("mean") as Checkpoint["mean"],
    approx: approx as Float64Array,
  };
  fields.done();
  return checkpoint;
}

/** Numbers that a map was fitted to, of every head; what near-and-far attention was fitted to is looked at by its run. */
function fitOf(fields: Fields): Checkpoint["fit"] {
  const fit = fields.maybe("fit", () => fields.object("fit"));
  if (fit?.has("heads")) {
    fit.list<unknown>("heads", 1, Infinity, (value) => {
      const { shift, balance, exponents, directions } = value as Partial<HeadFit> ?? {};
      const balanced = balance === null || [balance?.T, balance?.inverse].every((part) => part instanceof Float64Array);
      return balanced && exponents instanceof Float64Array &&
        [shift, directions].every((part) => part === null || part instanceof Float64Array);
    }, "heads with their numbers");
  } else if (fit && !fit.has("plan")) fields.fail("fit", "what a map was fitted to");
  return fields.any("fit") as Checkpoint["fit"];
}

/** Sums of a linear state as many as its sizes say; a far state is looked at by its session. */
function stateOf(fields: Fields): Checkpoint["state"] {
  const state = fields.maybe("state", () => fields.object("state"));
  if (state && !state.has("sums")) {
    const [heads, features, valueDim] = ["heads", "features", "valueDim"].map((name) => state.whole(name, 1));
    state.whole("keys", 0);
    for (
      const [name, length] of [["c", heads * features], ["z", heads * features], [
        "S",
        heads * features * valueDim,
      ]] as const
    ) {
      const numbers = state.any(name);
      if (!(numbers instanceof Float64Array && numbers.length === length)) {
        state.fail(name, `${length} float64 numbers`);
      }
    }
    state.done();
  }
  return fields.any("state") as Checkpoint["state"];
}

/** What a checkpoint of a run has: `approx` numbers of sampled rows, and where rows are left a state of these heads, features and columns. */
export interface CheckpointSizes {
  readonly keyRows: number;
  readonly queryRows: number;
  readonly approx: number;
  readonly state: readonly [heads: number, features: number, valueDim: number] | null;
}

/** Why a checkpoint is none of a run of these sizes; null where it may be one. */
export function foreignTo({ keyRows, rows, approx, state }: Checkpoint, wanted: CheckpointSizes): string | null {
  if (keyRows > wanted.keyRows || rows > wanted.queryRows) {
    return `it has seen ${keyRows} key rows and written ${rows} rows, of ${wanted.keyRows} and ${wanted.queryRows}`;
  }
  if (approx.length !== wanted.approx) return `${approx.length} numbers of its sampled rows, expected ${wanted.approx}`;
  if (!wanted.state) return null;
  if (!state) return keyRows > 0 && rows < wanted.queryRows ? `it lacks the state of ${keyRows} key rows` : null;
  const found = "sums" in state ? ["a far field"] : [state.heads, state.features, state.valueDim];
  return String(found) === String(wanted.state)
    ? null
    : `its state is ${found.join(" × ")}, expected ${wanted.state.join(" × ")}`;
}
