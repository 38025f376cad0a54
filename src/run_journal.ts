/**
 * What a run that may be ended at any moment keeps beside its output, and what a later run needs to go on from there.
 *
 * Rows are computed tile by tile and the state between two tiles is host memory in float64, so that a run which begins at a tile's edge with
 * the state of a checkpoint does the very additions that the first one would have done: outputs are equal byte for byte. That holds for the
 * same inputs, settings, program, runtime and processor alone, which is why a journal says what it was begun with and is refused by others.
 */
import type { SessionCounts } from "./backend.ts";
import { type Disk, disk as ownDisk, type FileIdentity } from "./disk.ts";
import { InputError, TransientError, UsageError } from "./errors.ts";
import type { FarState } from "./far_state.ts";
import type { FittedNearFar } from "./fit_near_far.ts";
import type { Fit } from "./fitted.ts";
import { pack, unpack } from "./packed.ts";
import { type PartialNames, PartialOutput, readJournal, removeJournal, replaceJournal } from "./partial_output.ts";
import { isSame, ownMark, type ProcessMark, runs } from "./processes.ts";
import type { MeanSums } from "./rules_uniform.ts";
import { writtenOf } from "./run_journal_fields.ts";
import { FieldError } from "./fields.ts";
import type { State } from "./state.ts";
import type { Stopwatch } from "./timing.ts";
import { count } from "./words.ts";

/** How far a run has come, and all that the rest of it depends on besides its inputs and settings. */
export interface Checkpoint {
  readonly tileRows: number;
  /** Key rows that `state` holds, and output rows that are written. */
  readonly keyRows: number;
  readonly rows: number;
  readonly counts: SessionCounts;
  /** Spent by all runs so far. */
  readonly seconds: ReturnType<Stopwatch["seconds"]>;
  readonly fit: Fit | FittedNearFar | null;
  /** null where there is none, or no more need of it. */
  readonly state: State | FarState | null;
  /** Of the values, where outputs are shrunk towards it. */
  readonly mean: MeanSums | null;
  /** Outputs of the sampled rows among the first `rows`; zeros for the others. */
  readonly approx: Float64Array;
}

/** Where a run keeps its checkpoints. */
export interface Checkpoints {
  /** Where an earlier run came to; null: this is the first. */
  readonly last: Checkpoint | null;
  /** It is time for another. */
  readonly due: boolean;
  save(checkpoint: Checkpoint): Promise<void>;
}

/** An input file as it was when the journal was begun. */
export interface JournalInput extends FileIdentity {
  /** SHA-256 of its first bytes. */
  readonly head: string;
}

/** What decides the bytes of an output. */
export interface JournalSubject {
  readonly version: string;
  /** Settings by the names that people give them, as texts. */
  readonly settings: Readonly<Record<string, string>>;
  readonly inputs: readonly JournalInput[];
}

/** What stands in a journal. */
export interface Written extends JournalSubject {
  readonly owner: ProcessMark;
  /** Milliseconds since 1970. */
  readonly time: number;
  /** Of the output (FileIdentity); 0 while there is none. */
  readonly inode: number;
  /** Decided by trials on the inputs, where something was left to choice. */
  readonly choice: unknown;
  readonly checkpoint: Checkpoint | null;
}

/** A journal as it was found, before it is known whether it belongs here. */
export type Found = Pick<Written, "settings">;

/** Share of the time that checkpoints may take: the next one waits for so many times as long as the last one took. */
const PATIENCE = 9;

export interface JournalOptions {
  /** The output as the user calls it. */
  readonly path: string;
  /** Seconds between checkpoints. */
  readonly every: number;
  readonly disk?: Disk;
  readonly owner?: ProcessMark;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
  /** Milliseconds of a clock that is never set. */
  readonly clock?: () => number;
}

/** The journal of an output. */
export class RunJournal implements Checkpoints, AsyncDisposable {
  readonly #disk: Disk;
  readonly #owner: ProcessMark;
  readonly #clock: () => number;
  #written: Written;
  #output: PartialOutput | null = null;
  #saved: number;
  #took = 0;

  private constructor(readonly names: PartialNames, readonly options: JournalOptions, written: Written) {
    this.#disk = options.disk ?? ownDisk;
    this.#owner = written.owner;
    this.#written = written;
    this.#clock = options.clock ?? (() => performance.now());
    this.#saved = this.#clock();
  }

  /** The journal that lies there; null: none. Throws InputError for one that is damaged or none of ours. */
  static async find(names: PartialNames, disk: Disk = ownDisk): Promise<Found | null> {
    const bytes = await readJournal(names, disk);
    try {
      return bytes && writtenOf(unpack(bytes, names.journal));
    } catch (error) {
      const words = error instanceof FieldError ? `Cannot read "${names.journal}": ${error.message}` : null;
      if (!words && !(error instanceof InputError)) throw error;
      throw new InputError(`${words ?? (error as Error).message}; ${anew(names)}`, { cause: error });
    }
  }

  /**
   * Begins a journal and its output, or goes on with `found`. Throws UsageError for other settings or another version, InputError for
   * inputs that changed and an output that is gone or is another file, TransientError while another run is at work on it.
   */
  static async open(
    names: PartialNames,
    subject: JournalSubject,
    found: Found | null,
    options: JournalOptions,
  ): Promise<RunJournal> {
    const { disk = ownDisk, owner = ownMark(), now = Date.now, path } = options;
    const written = found as Written | null;
    const there = disk.identity(names.partial);
    if (written) refuse(written, subject, names, { owner, now: now(), every: options.every });
    else if (there) {
      throw new UsageError(
        `Cannot begin "${names.partial}": a file without a journal lies there; remove it, or name another output`,
      );
    }
    const started = { ...subject, owner, time: now(), inode: 0, choice: null, checkpoint: null };
    const journal = new RunJournal(names, options, written ? { ...written, owner } : started);
    // A journal is there before its output, so that no file is taken for one's own that is not.
    if (!written) await journal.#write();
    const { inode } = journal.#written;
    if (inode > 0 && !there && disk.identity(names.output)?.inode === inode) return journal; // ended before its journal did
    if (inode > 0 && there?.inode !== inode) {
      throw new InputError(
        `Cannot resume "${path}": ${there ? "another file lies at" : "there is no"} "${names.partial}" ` +
          `${there ? "than the one its journal is of" : "any more"}; ${anew(names)}`,
      );
    }
    journal.#output = new PartialOutput(path, names, { create: inode === 0 }, disk);
    journal.#written = { ...journal.#written, inode: journal.#output.inode };
    await journal.#write();
    return journal;
  }

  /** The file that the output is written to; null: it is complete and has its name. */
  get output(): PartialOutput | null {
    return this.#output;
  }

  get last(): Checkpoint | null {
    return this.#written.checkpoint;
  }

  get due(): boolean {
    const passed = (this.#clock() - this.#saved) / 1000;
    return passed >= Math.max(this.options.every, PATIENCE * this.#took);
  }

  /** What trials on the inputs decided; made once and kept. */
  async choice<T>(choose: () => Promise<T>): Promise<T> {
    if (this.#written.choice === null) {
      this.#written = { ...this.#written, choice: await choose() };
      await this.#write();
    }
    return this.#written.choice as T;
  }

  /** Rows are synced first, so that no journal is ahead of them. */
  async save(checkpoint: Checkpoint): Promise<void> {
    const before = this.#clock();
    this.#output?.sync();
    this.#written = { ...this.#written, checkpoint };
    await this.#write();
    this.#saved = this.#clock();
    this.#took = (this.#saved - before) / 1000;
  }

  async #write(): Promise<void> {
    const time = (this.options.now ?? Date.now)();
    this.#written = { ...this.#written, owner: this.#owner, time };
    await replaceJournal(this.names, pack(this.#written), this.#disk);
  }

  /** Removes the journal; the output has its name. */
  finish(): void {
    removeJournal(this.names, this.#disk);
  }

  /** What to say when the run ends before its time. */
  get parting(): string {
    const { path } = this.options;
    if (this.#disk.identity(this.names.partial) === null) {
      return `"${path}" is complete; run the same command again for the report`;
    }
    const { rows = 0, keyRows = 0 } = this.last ?? {};
    const done = rows > 0 ? `row ${count(rows)}` : keyRows > 0 ? `key row ${count(keyRows)}` : "the start";
    return `"${this.names.partial}" and its journal are kept: run the same command again to go on from ${done}`;
  }

  /** Closes the output; what is written stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#output?.[Symbol.asyncDispose]();
  }
}

/** Milliseconds that the journal of a process which cannot be seen from here is left alone; checkpoints come every so many seconds. */
export const silence = (every: number): number => 60_000 + 3000 * every;

const anew = ({ journal, partial }: PartialNames) => `remove "${journal}" and "${partial}" to begin anew`;

/** Throws why a journal cannot be gone on with. */
function refuse(
  written: Written,
  { version, settings, inputs }: JournalSubject,
  names: PartialNames,
  { owner, now, every }: { readonly owner: ProcessMark; readonly now: number; readonly every: number },
): void {
  const cannot = `Cannot resume "${names.output}"`;
  if (written.version !== version) {
    throw new UsageError(
      `${cannot}: its journal is of performer ${written.version}, this is ${version}; go on with that, or ${
        anew(names)
      }`,
    );
  }
  const other = [...new Set([...Object.keys(written.settings), ...Object.keys(settings)])]
    .filter((name) => written.settings[name] !== settings[name])
    .map((name) => `${name} ${written.settings[name] ?? "not given"}, now ${settings[name] ?? "not given"}`);
  if (other.length > 0) {
    throw new UsageError(
      `${cannot}: its journal was begun with other settings: ${other.join("; ")}; go on with those, or ${anew(names)}`,
    );
  }
  for (const [i, input] of inputs.entries()) {
    const what = changeOf(written.inputs[i], input);
    if (what) throw new InputError(`${cannot}: input "${input.path}" ${what} since; ${anew(names)}`);
  }
  if (isSame(owner, written.owner)) return; // a session goes on with what it stopped itself
  const alive = runs(written.owner);
  const since = now - written.time;
  const { pid, host } = written.owner;
  if (alive) throw new TransientError(`${cannot}: process ${pid} is at work on it, wait for its end`);
  const patience = silence(every);
  if (alive === null && since < patience) {
    throw new TransientError(
      `${cannot}: process ${pid} on ${host} wrote its journal ${
        Math.max(0, Math.round(since / 1000))
      } s ago and may still ` +
        `be at work; try again in ${Math.ceil((patience - since) / 1000)} s`,
    );
  }
}

/** What about an input is not as it was; null: nothing. */
function changeOf(was: JournalInput, is: JournalInput): string | null {
  if (was.path !== is.path) return `is another file than "${was.path}"`;
  if (was.size !== is.size) return `has changed its size from ${count(was.size)} to ${count(is.size)} bytes`;
  if (was.changed !== is.changed) return "has been written to";
  return was.head === is.head ? null : "has changed its first bytes";
}
