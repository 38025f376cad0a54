/** The one table of subcommands. Adding one is a file and its line here. */
import { attend } from "./attend.ts";
import { backends } from "./backends.ts";
import { bench } from "./bench.ts";
import type { Command } from "./command.ts";
import { compare } from "./compare.ts";
import { completions } from "./completions.ts";
import { convert } from "./convert.ts";
import { doctor } from "./doctor.ts";
import { drift } from "./drift.ts";
import { explain } from "./explain.ts";
import { figure } from "./figure.ts";
import { generate } from "./generate.ts";
import { help } from "./help.ts";
import { inspect } from "./inspect.ts";
import { repl } from "./repl.ts";
import { man } from "./man.ts";
import { run } from "./run.ts";
import { shard } from "./shard.ts";
import { state } from "./state.ts";
import { tune } from "./tune.ts";

export const COMMANDS: readonly Command[] = [
  attend,
  compare,
  tune,
  explain,
  state,
  run,
  generate,
  drift,
  bench,
  figure,
  shard,
  inspect,
  convert,
  backends,
  doctor,
  repl,
  completions,
  help,
  man,
];

/** One line about the program. */
export const SUMMARY =
  "performer: Performer (FAVOR+) linear attention over files of any length, with its error against exact softmax";
