/**
 * Claims on outputs: a file `.OUT.lock` beside OUT says which process writes it, so that a second run that wants the same output ends at once
 * instead of computing it too.
 *
 * A claim is made by linking a file that is complete to its name, so nobody sees half of one. Whoever finds that of a dead process renames its
 * own over it, and holds a claim on doing that (`.OUT.lock.take`) from before it looks once more whose claim it is. So of two that find the
 * same dead claim one replaces it and the other sees that it is another by now; and whoever dies in between leaves a claim like any other.
 */
import { basename, dirname, join } from "node:path";
import { temporaries } from "./disk.ts";
import { createNow, replaceNow, textNow, whereIs } from "./disk_names.ts";
import { TransientError } from "./errors.ts";
import { isSame, ownMark, type ProcessMark, runs } from "./processes.ts";
import { writeError } from "./system_errors.ts";

/** A claim that is held; disposing gives it back. */
export interface Claim extends Disposable {
  /** The file that says so. */
  readonly path: string;
}

export interface ClaimOptions {
  /** Asked where it cannot be seen from here whether the claimant still runs: true where something else says that it does not. */
  readonly left?: () => boolean;
}

/** What stands in a claim. */
interface Written extends ProcessMark {
  /** When it was made, for people. */
  readonly since: string;
  /** Tells claims of one process apart. */
  readonly id: string;
}

/** Why there is no claim. `by` is null where the file does not say whose it is. */
interface Taken {
  readonly file: string;
  readonly by: ProcessMark | null;
  readonly runs: boolean | null;
}

/** How often a claim is looked at that others make or take over at this moment, and milliseconds between. */
const LOOKS = 200;
const PAUSE = 5;
/** A file that does not say whose it is may be in the making where there are no hard links: looks until it is believed. */
const LOOKS_AT_ODD = 20;

/** The file that claims an output. Names that lead to one file have one claim. */
export function claimPath(output: string): string {
  const target = whereIs(output);
  return join(dirname(target), `.${basename(target)}.lock`);
}

/**
 * Claims an output for this process. Throws TransientError while another process has it or may have it, UsageError where nothing can be
 * written beside it.
 */
export async function claimOutput(output: string, options: ClaimOptions = {}): Promise<Claim> {
  const file = claimPath(output);
  try {
    const found = await acquire(file, options);
    if ("by" in found) throw busy(output, found);
    return found;
  } catch (error) {
    throw writeError(error, output);
  }
}

async function acquire(file: string, options: ClaimOptions): Promise<Claim | Taken> {
  const written: Written = { ...ownMark(), since: new Date().toISOString(), id: crypto.randomUUID() };
  const text = `${JSON.stringify(written, null, 1)}\n`;
  for (let looks = 1;; looks++) {
    if (createNow(file, text)) return held(file, text);
    const found = textNow(file); // null: given back since, or not to be read
    const by = found === null ? null : parse(found);
    if (by === null) {
      if (looks >= LOOKS_AT_ODD) return { file, by, runs: null };
    } else {
      const alive = runs(by);
      if (alive === true || (alive === null && !options.left?.())) return { file, by, runs: alive };
      const taking = await acquire(`${file}.take`, {});
      if (!("by" in taking)) {
        using _taking = taking;
        if (textNow(file) === found) {
          replaceNow(file, text);
          return held(file, text);
        }
      } else if (taking.runs !== true || looks >= LOOKS) return taking;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

/** Giving back leaves a claim alone that is another by now: somebody removed this one by hand. */
function held(path: string, text: string): Claim {
  return {
    path,
    [Symbol.dispose]() {
      if (textNow(path) === text) temporaries.remove(path);
      else temporaries.keep(path);
    },
  };
}

/** Whose a claim is; null for what is none. */
function parse(text: string): ProcessMark | null {
  try {
    const { pid, started, place, host, machine } = JSON.parse(text) as Written;
    const words = [started, place, host, machine].every((word) => typeof word === "string");
    return Number.isSafeInteger(pid) && words ? { pid, started, place, host, machine } : null;
  } catch {
    return null;
  }
}

function busy(output: string, { file, by, runs }: Taken): TransientError {
  const cannot = `Cannot write "${output}"`;
  if (by === null) {
    return new TransientError(
      `${cannot}: "${file}" lies beside it and does not say who writes it; remove that file if nobody does`,
    );
  }
  if (isSame(by, ownMark())) return new TransientError(`${cannot}: this process is at work on it`);
  const who = `process ${by.pid} on ${by.host}`;
  if (runs) return new TransientError(`${cannot}: ${who} is at work on it, wait for its end or name another output`);
  return new TransientError(
    `${cannot}: ${who} has claimed it, and whether that still runs cannot be seen from here; wait for its end, or ` +
      `remove "${file}" if it is over`,
  );
}
