/** The story of `shard`: what an action takes, and what is printed about it. Each action is a file of its own. */
import { UsageError } from "../errors.ts";
import { shardText } from "../exporters/shard.ts";
import type { ShardAction } from "../shard/actions.ts";
import { isModelPlan, type ModelPlan } from "../shard/model_plan.ts";
import type { ShardPlan } from "../shard/plan.ts";
import { readPlan } from "../shard/plan_file.ts";
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

/** An action over a plan that was read. */
export type RunAction<P> = (plan: P, invocation: Invocation, terminal: Terminal, progress: Progress) => Promise<Done>;

const REPORTING = ["json", "jsonl", "quiet", "verbose", "no-color", "format"];
const COMPUTING = ["id", "output", "force", "backend", "threads", "tile"];
const INPUTS = ["causal", "heads", "kv-heads", "scale", "mask", "q", "k", "v", "layout", "dtype", "encode", "rows"];
const SETTINGS = ["features", "num-features", "projection", "norms", "seed", "params", "centre", "projection-matrix"];
const MODEL = ["weights", "config", "part", "encodings", "compat"];
const PLANNING = ["output", "shards", "decay", "output-dtype", ...INPUTS, ...SETTINGS, ...MODEL];
const MODEL_PLANNING = ["output", "shards", "output-dtype", "mask", ...MODEL];

interface Action<P> {
  readonly run: () => Promise<RunAction<P>>;
  /** Flags it takes besides those of reports. */
  readonly flags: readonly string[];
  /** How many files it takes besides the plan, at least and at most. */
  readonly files: readonly [least: number, most: number, what: string];
}

type Actions<P> = Readonly<Record<Exclude<ShardAction, "plan">, Action<P>>>;

const SCRIPT: Action<ShardPlan | ModelPlan> = {
  run: async () => (await import("./shard_script.ts")).scriptOf,
  flags: ["output", "engine", "program", "backend", "threads", "tile"],
  files: [0, 0, "PLAN"],
};

/** What can be done with a plan of one attention. */
const ACTIONS: Actions<ShardPlan> = {
  map: {
    run: async () => (await import("./shard_tasks.ts")).mapShard,
    flags: COMPUTING,
    files: [0, 0, "PLAN"],
  },
  merge: {
    run: async () => (await import("./shard_merge.ts")).mergeStatesOf,
    flags: ["output", "scan"],
    files: [1, 1, "PLAN and the folder of its states"],
  },
  apply: {
    run: async () => (await import("./shard_tasks.ts")).applyShard,
    flags: [...COMPUTING, "state"],
    files: [0, 0, "PLAN"],
  },
  gather: {
    run: async () => (await import("./shard_merge.ts")).gatherPartsOf,
    flags: ["output"],
    files: [1, 1, "PLAN and the folder of its parts"],
  },
  status: {
    run: async () => (await import("./shard_merge.ts")).statusOf,
    flags: [],
    files: [1, Infinity, "PLAN and folders of states or parts"],
  },
  script: SCRIPT,
};

/** What can be done with a plan of a model. */
const MODEL_ACTIONS: Actions<ModelPlan> = {
  map: {
    run: async () => (await import("./shard_model_tasks.ts")).mapLayer,
    flags: [...COMPUTING, "layer"],
    files: [0, 0, "PLAN, a plan of a model"],
  },
  merge: {
    run: async () => (await import("./shard_model_merge.ts")).mergeLayer,
    flags: ["output", "layer"],
    files: [0, 0, "PLAN, a plan of a model, whose states are in the folder of the run (-o, or the plan's)"],
  },
  apply: {
    run: async () => (await import("./shard_model_tasks.ts")).applyLayer,
    flags: [...COMPUTING, "layer"],
    files: [0, 0, "PLAN, a plan of a model"],
  },
  gather: {
    run: async () => (await import("./shard_model_merge.ts")).gatherModel,
    flags: ["output"],
    files: [0, 1, "PLAN, a plan of a model, and the folder of the run where it is not the plan's"],
  },
  status: {
    run: async () => (await import("./shard_model_merge.ts")).modelStatus,
    flags: [],
    files: [0, 1, "PLAN, a plan of a model, and the folder of the run where it is not the plan's"],
  },
  script: SCRIPT,
};

/** Runs `performer shard`; returns the exit code. */
export async function runShard(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [name, ...files], flags } = invocation;
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let done: Done;
  try {
    done = await (name === "plan"
      ? planned({ ...invocation, arguments: files }, terminal, progress)
      : acted(name as keyof Actions<ShardPlan>, { ...invocation, arguments: files }, terminal, progress));
  } finally {
    progress.clear();
  }
  print(done, invocation, terminal);
  return done.code ?? 0;
}

async function planned(invocation: Invocation, terminal: Terminal, progress: Progress): Promise<Done> {
  const { arguments: files, flags } = invocation;
  const ofModel = flags.weights !== undefined;
  if (ofModel) refuseOthers("plan --weights", MODEL_PLANNING, invocation, "the checkpoint says what attention is");
  else refuseOthers("plan", PLANNING, invocation);
  requireCount("plan", files.length, [0, 3, "INPUT or Q K V"]);
  formatOf(invocation); // refuses contradictions
  if (ofModel) {
    const { planModel } = await import("./shard_model_plan.ts");
    return await planModel(invocation, terminal);
  }
  const { planShards } = await import("./shard_plan.ts");
  return await planShards(invocation, terminal, progress);
}

async function acted(
  name: keyof Actions<ShardPlan>,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { arguments: [file] } = invocation;
  if (file === undefined) requireCount(name, 0, [1, 1, ACTIONS[name].files[2]]);
  const plan = await readPlan(file);
  const run = async <P>({ run, flags, files: [least, most, what] }: Action<P>, plan: P) => {
    refuseOthers(name, flags, invocation);
    requireCount(name, invocation.arguments.length, [least + 1, most + 1, what]);
    formatOf(invocation); // refuses contradictions
    return await (await run())(plan, invocation, terminal, progress);
  };
  return await (isModelPlan(plan) ? run(MODEL_ACTIONS[name], plan) : run(ACTIONS[name], plan));
}

function requireCount(name: string, found: number, [least, most, what]: Action<unknown>["files"]): void {
  if (found >= least && found <= most) return;
  throw new UsageError(`Cannot run shard ${name} with ${found} files: expected ${what}`);
}

/** A flag that an action would pass over in silence is refused: what a plan says cannot be overruled by a task. */
function refuseOthers(name: string, flags: readonly string[], { sources }: Invocation, why?: string): void {
  const other = Object.keys(sources).find((flag) => {
    return sources[flag] === "flag" && !flags.includes(flag) && !REPORTING.includes(flag);
  });
  if (other === undefined) return;
  const taken = `it takes ${flags.map((flag) => `--${flag}`).join(", ") || "none"}`;
  const planned = PLANNING.includes(other) ? "the plan says it; make another plan" : taken;
  const reason = why ?? (other === "layer" ? "its plan is of one attention, not of a model (plan --weights)" : planned);
  throw new UsageError(`Cannot use --${other} with shard ${name}: ${reason}`);
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
