/** What a subcommand is: a value. The command line, help, completions and docs read the one table in mod.ts. */

import type { ReadStream, WriteStream } from "node:tty";
import type { openFirst } from "../backends/mod.ts";

/** The world a command runs in. Only cli.ts makes one; commands never touch `process`. */
export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly stdinTTY: boolean;
  readonly stdoutTTY: boolean;
  readonly stderrTTY: boolean;
  readonly columns: number;
  /** "Bun 1.4.5", "Deno 2.9.6". */
  readonly runtime: string;
  /** Writes to standard output, all of it, before returning. */
  out(text: string): void;
  /** Writes to standard error. */
  err(text: string): void;
  /** Largest resident set of the process so far, in bytes. */
  peakBytes(): number;
  /** Aborts at the first Ctrl-C. */
  readonly signal: AbortSignal;
  /** Keys and screen of an interactive session; null where stdin or stdout is no terminal. Opened when first asked for. */
  readonly console?: Console | null;
  /** Opens a backend; a session (the REPL) keeps those it opened. Absent: `openFirst`. */
  readonly openFirst?: typeof openFirst;
  /** Takes what a command found, which a session keeps. */
  found?(report: object): void;
  /** What scripts may import (mod.ts): the `js` of a session has it in scope. */
  readonly library?: () => Promise<Readonly<Record<string, unknown>>>;
  /** Values of flags by name that hold for a whole session, between the command line and the environment. */
  readonly settings?: Readonly<Record<string, string>>;
}

/** A terminal that a person types at. */
export interface Console {
  /** Keys as they are pressed, from `raw(true)` on. */
  readonly input: ReadStream;
  readonly output: WriteStream;
  /** Hands the terminal back to the shell (Ctrl-Z) until the shell gives it back. */
  suspend(): void;
}

/** What may stand at a place of the command line, for completion. */
export interface Offers {
  /** The only values. */
  readonly choices?: readonly string[];
  /** Values worth offering where others are allowed too, such as "clusters:128". */
  readonly offers?: readonly string[];
  /** What single choices and offers are. */
  readonly meanings?: Readonly<Record<string, string>>;
  /** Names of files that fit, by how they end, such as ".npy"; [] is any file. Without it: any file where the place is called FILE. */
  readonly files?: readonly string[];
  /** Names of commands and topics fit. */
  readonly topics?: true;
}

/** A flag: help, completions, environment and configuration all come from this value. */
export interface Flag extends Offers {
  /** Long name without dashes, e.g. "num-features"; also the key in configuration files. */
  readonly name: string;
  readonly short?: string;
  /** Placeholder of the value; a flag without one is a switch. */
  readonly value?: string;
  readonly summary: string;
  /** The value is a list with commas between, of `choices` or of `offers`; a list of choices is an array of them. */
  readonly list?: true;
  readonly default?: unknown;
  /** Turns the text into the value; throws UsageError that completes "Cannot use --name TEXT: …". Lists of choices need none. */
  readonly parse?: (text: string) => unknown;
  /** May be given more than once: the value is a list. */
  readonly many?: boolean;
  /** Names an output: a file ("-": standard output), or a folder as well (outputs.ts). */
  readonly writes?: "file" | "folder";
  /** Of an output: the flag whose file it may replace. */
  readonly replaces?: string;
}

export interface Argument extends Offers {
  readonly name: string;
  readonly summary: string;
  readonly optional?: boolean;
  /** The last one may be given several times. */
  readonly many?: boolean;
  /** Names an output; "-" is standard output there. */
  readonly writes?: "file";
}

/** Where a value came from. */
export type Source = "flag" | "session" | "environment" | "project file" | "user file" | "default";

export interface Invocation {
  /** The words of the command line, the command's name first. */
  readonly line: readonly string[];
  readonly arguments: readonly string[];
  /** Values by flag name; absent when neither given nor defaulted. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly sources: Readonly<Record<string, Source>>;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly arguments: readonly Argument[];
  readonly flags: readonly Flag[];
  readonly examples: readonly string[];
  /** false: outputs are not claimed, and two runs may write the same (outputs.ts). */
  readonly claims?: false;
  /** `--output` is a tensor, which a session may give a name. */
  readonly makesTensor?: boolean;
  /** Runs it and returns the exit code. Loads what it needs when called, so that help stays fast. */
  run(invocation: Invocation, terminal: Terminal): Promise<number>;
}
