/** "-" as standard input: who reads it, and that somebody can. */
import { UsageError } from "../errors.ts";
import type { Command, Invocation, Terminal } from "./command.ts";

/** Flags whose value is a file of numbers, or "-". */
const FILES = [
  "q",
  "k",
  "v",
  "mask",
  "weights",
  "projection-matrix",
  "context",
  "context-mask",
  "prompt",
  "state-in",
  "batch",
  "like",
];
/** These are members of one file where several of them are "-". */
const MEMBERS = ["INPUT", "--q", "--k", "--v", "--mask"];

/** Throws UsageError where standard input is a terminal, which would wait for a tensor to be typed, or has two readers. */
export function checkStdin(
  { arguments: names }: Command,
  { arguments: given, flags }: Invocation,
  terminal: Terminal,
): void {
  const readers = [
    ...names.filter(({ writes }, i) => !writes && given[i] === "-").map(({ name }) => name),
    ...FILES.filter((name) => flags[name] === "-").map((name) => `--${name}`),
  ];
  if (readers.length === 0) return;
  if (terminal.stdinTTY) {
    const what =
      { "--prompt": "the prompt", MODEL: "a model", "--weights": "a model", "--batch": "a list" }[readers[0]] ??
        "a tensor";
    throw new UsageError(`Cannot read ${what} from the terminal: pipe a file in (… < file), or name one`);
  }
  if (readers.length > 1 && !readers.every((reader) => MEMBERS.includes(reader))) {
    throw new UsageError(
      `Cannot read standard input for ${readers.join(" and ")}: name a file for all but one of them`,
    );
  }
}
