/** The story of `shard`: what an action takes, and what is printed about it. Each action is a file of its own. */
import { UsageError } from "../errors.ts";
import { shardText } from "../exporters/shard.ts";
import type { ShardAction } from "../shard/actions.ts";
import { SHARD_SCHEMA, type ShardReport } from "../shard/report.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf, jsonText, linesOf, silent } from "./machine.ts";
import { Progress, useColor } from "./progress.ts";

/** What an action did; `code` is the exit code, `trouble` what stands in its way, `toStdout` whether stdout carries its result. */
export interface Done {
  readonly report: ShardReport;
  readonly code?: number;
  readonly trouble?: string;
  readonly toStdout?: boolean;
}

export type RunAction = (invocation: Invocation, terminal: Terminal, progress: Progress) => Promise<Done>;

const REPORTING = ["json", "jsonl", "quiet", "verbose", "no-color", "format"];
const COMPUTING = ["id", "output", "force", "backend", "threads", "tile"];
const INPUTS = ["causal", "heads", "kv-heads", "scale", "mask", "q", "k", "v", "layout", "dtype", "encode", "rows"];
const SETTINGS = ["features", "num-features", "projection", "norms", "seed", "params", "centre", "projection-matrix"];

interface Action {
  readonly run: () => Promise<RunAction>;
  /** Flags it takes besides those of reports. */
  readonly flags: readonly string[];
  /** How many files it takes, at least and at most. */
  readonly files: readonly [least: number, most: number, what: string];
}

const ACTIONS: Readonly<Record<ShardAction, Action>> = {
  plan: {
    run: async () => (await import("./shard_plan.ts")).planShards,
    flags: ["output", "shards", "decay", "output-dtype", ...INPUTS, ...SETTINGS],
    files: [0, 3, "INPUT or Q K V"],
  },
  map: {
    run: async () => (await import("./shard_tasks.ts")).mapShard,
    flags: COMPUTING,
    files: [1, 1, "PLAN"],
  },
  merge: {
    run: async () => (await import("./shard_merge.ts")).mergeStatesOf,
    flags: ["output", "scan"],
    files: [2, 2, "PLAN and the folder of its states"],
  },
  apply: {
    run: async () => (await import("./shard_tasks.ts")).applyShard,
    flags: [...COMPUTING, "state"],
    files: [1, 1, "PLAN"],
  },
  gather: {
    run: async () => (await import("./shard_merge.ts")).gatherPartsOf,
    flags: ["output"],
    files: [2, 2, "PLAN and the folder of its parts"],
  },
  status: {
    run: async () => (await import("./shard_merge.ts")).statusOf,
    flags: [],
    files: [2, Infinity, "PLAN and folders of states or parts"],
  },
  script: {
    run: async () => (await import("./shard_script.ts")).scriptOf,
    flags: ["output", "engine", "program", "backend", "threads", "tile"],
    files: [1, 1, "PLAN"],
  },
};

/** Runs `performer shard`; returns the exit code. */
export async function runShard(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [name, ...files], flags } = invocation;
  const action = ACTIONS[name as ShardAction];
  refuseOthers(name, action, invocation);
  const [least, most, what] = action.files;
  if (files.length < least || files.length > most) {
    throw new UsageError(`Cannot run shard ${name} with ${files.length} files: expected ${what}`);
  }
  formatOf(invocation); // refuses contradictions
  const run = await action.run();
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let done: Done;
  try {
    done = await run({ ...invocation, arguments: files }, terminal, progress);
  } finally {
    progress.clear();
  }
  print(done, invocation, terminal);
  return done.code ?? 0;
}

/** A flag that an action would pass over in silence is refused: what a plan says cannot be overruled by a task. */
function refuseOthers(name: string, { flags }: Action, { sources }: Invocation): void {
  const other = Object.keys(sources).find((flag) => {
    return sources[flag] === "flag" && !flags.includes(flag) && !REPORTING.includes(flag);
  });
  if (other === undefined) return;
  const planned = ACTIONS.plan.flags.includes(other);
  throw new UsageError(
    `Cannot use --${other} with shard ${name}: ${
      planned
        ? "the plan says it; make another plan"
        : `it takes ${flags.map((flag) => `--${flag}`).join(", ") || "none"}`
    }`,
  );
}

function print({ report, trouble, toStdout = false }: Done, invocation: Invocation, terminal: Terminal): void {
  const say = toStdout ? terminal.err : terminal.out;
  terminal.found?.(report);
  const lines = linesOf(invocation, terminal, SHARD_SCHEMA, !toStdout);
  if (lines) lines.end(report);
  else if (formatOf(invocation) === "json") say(jsonText(report));
  else if (!silent(invocation)) say(shardText(report, { color: useColor(terminal, invocation.flags, !toStdout) }));
  if (trouble) terminal.err(`performer: ${trouble}\n`);
}
