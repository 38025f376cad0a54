/** `performer shard merge`, `gather` and `status`: what there is of all shards, and one of it. */
import { join } from "node:path";
import { isFolderAt, listFolder, makeFolder } from "../bytes.ts";
import { IncompleteError, UsageError } from "../errors.ts";
import { openSink, outputFormat } from "../formats/sink.ts";
import { gatherParts, surveyParts } from "../shard/parts.ts";
import { type PartsPlan, shardCount, shardName, type ShardPlan, type StatesPlan } from "../shard/plan.ts";
import { folderReport, remedy, type ShardReport, troubleIn } from "../shard/report.ts";
import {
  allShards,
  attentionStates,
  isComplete,
  mergeShards,
  shardsBefore,
  type StateFiles,
  type Survey,
  surveyStates,
} from "../shard/states.ts";
import { refuseStateName, STATE_SUFFIX } from "../state_file.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf } from "./machine.ts";
import type { Progress } from "./progress.ts";
import { reportOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

export const INCOMPLETE = new IncompleteError("").exitCode;

/** One state of all shards, or with --scan one for each shard, of those before it. */
export async function mergeStatesOf(
  plan: ShardPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { arguments: [, folder], flags } = invocation;
  const scan = flags.scan === true;
  if (flags.output === undefined || flags.output === "-") {
    throw new UsageError(`Missing -o: name ${scan ? "a folder such as prefix/" : "a file such as kv.safetensors"}`);
  }
  const output = String(flags.output);
  if (!scan) refuseStateName(output);
  if (scan && !plan.attention.causal) {
    throw new UsageError(
      `Cannot use --scan with "${plan.path}": its attention is not causal, every query sees all keys`,
    );
  }
  const report = reportOf("merge", plan, terminal);
  const merging = { plan, files: attentionStates(plan), report, scan, output, again: "map" };
  return await mergeInto(merging, await surveyStates(plan, folder), { invocation, terminal, progress });
}

/** Who asked, who is told, and who sees it go on. */
export interface Call {
  readonly invocation: Invocation;
  readonly terminal: Terminal;
  readonly progress: Progress;
}

/** States that are to be added up. */
export interface Merging<S> {
  readonly plan: StatesPlan;
  readonly files: StateFiles<S>;
  readonly report: ShardReport;
  /** A state of the keys before each shard into the folder `output`, not one of all into a file. */
  readonly scan: boolean;
  readonly output: string;
  /** What makes states that are missing. */
  readonly again: string;
}

/** Adds up the states that a survey found. */
export async function mergeInto<S>(
  { plan, files, report, scan, output, again }: Merging<S>,
  survey: Survey,
  call: Call,
): Promise<Done> {
  const started = performance.now();
  if (!isComplete(survey)) return incomplete(report, survey, again, call.invocation);
  if (scan) await makeFolder(output);
  const write = async (id: number, before: S) => {
    return scan ? await files.write(join(output, shardName(plan, id) + STATE_SUFFIX), shardsBefore(id), before) : 0;
  };
  const { state, damaged, bytes } = await mergeShards(
    plan,
    files,
    survey.folder,
    write,
    (done) => step(call, done, plan),
  );
  if (!state) {
    const done = survey.done.filter((id) => !damaged.includes(id));
    return incomplete(report, { ...survey, done, damaged }, again, call.invocation);
  }
  const written = scan ? bytes.written : await files.write(output, allShards(plan), state);
  return {
    report: {
      ...report,
      folders: [folderReport(survey)],
      complete: true,
      bytesRead: bytes.read,
      output: { path: output, bytes: written },
      seconds: secondsSince(started),
      peakBytes: call.terminal.peakBytes(),
    },
  };
}

/** All outputs as one tensor. */
export async function gatherPartsOf(
  plan: ShardPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { arguments: [, folder] } = invocation;
  const report = reportOf("gather", plan, terminal);
  return await gatherInto(plan, folder, report, "apply", { invocation, terminal, progress });
}

/** Gathers the parts of a folder into `-o`; `again` makes parts that are missing. */
export async function gatherInto(
  plan: PartsPlan,
  folder: string,
  report: ShardReport,
  again: string,
  call: Call,
): Promise<Done> {
  const to = call.invocation.flags.output;
  if (to === undefined) throw new UsageError("Missing -o: name a file such as out.npy, or - for stdout");
  const output = String(to);
  outputFormat(output); // refuses an unknown suffix before anything is read
  const started = performance.now();
  const survey = await surveyParts(plan, folder);
  if (!isComplete(survey)) return incomplete(report, survey, again, call.invocation);
  const { output: { dtype, shape }, sizes: { heads, valueDim }, input: { layout } } = plan;
  await using sink = await openSink(output, { dtype, shape, heads, width: valueDim, layout });
  await gatherParts(plan, folder, sink, (done) => step(call, done, plan));
  const bytes = shape.reduce((product, n) => product * n, { f16: 2, f32: 4, f64: 8 }[dtype]);
  return {
    toStdout: output === "-",
    report: {
      ...report,
      folders: [folderReport(survey)],
      complete: true,
      output: { path: output === "-" ? "stdout" : output, bytes },
      seconds: secondsSince(started),
      peakBytes: call.terminal.peakBytes(),
    },
  };
}

/** What there is of a plan in some folders of states, prefixes or parts. */
export async function statusOf(
  plan: ShardPlan,
  { arguments: [, ...folders] }: Invocation,
  terminal: Terminal,
): Promise<Done> {
  const surveys: Survey[] = [];
  for (const folder of folders) surveys.push(await survey(plan, folder));
  const complete = surveys.every(isComplete);
  return {
    report: { ...reportOf("status", plan, terminal), folders: surveys.map(folderReport), complete },
    code: complete ? 0 : INCOMPLETE,
  };
}

/** A folder by what is in it: parts, prefixes of a scan, or states. */
async function survey(plan: ShardPlan, folder: string): Promise<Survey> {
  if (isFolderAt(folder) && listFolder(folder).some(({ name }) => name.endsWith(".npy"))) {
    return await surveyParts(plan, folder);
  }
  const states = await surveyStates(plan, folder);
  if (!plan.attention.causal || states.done.length > 1) return states;
  const prefixes = await surveyStates(plan, folder, shardsBefore);
  return prefixes.done.length > states.done.length ? prefixes : states;
}

/** Exit 5 with what is missing, in the report and in words. Throws IncompleteError where only words are wanted. */
function incomplete(report: ShardReport, survey: Survey, action: string, invocation: Invocation): Done {
  const out = remedy(survey, action);
  const trouble = `Cannot ${report.action}: ${survey.done.length} of ${report.plan.shards} shards are done in ` +
    `"${survey.folder}", ${troubleIn(survey)}${out && `; ${out}`}`;
  if (formatOf(invocation) === "text") throw new IncompleteError(trouble);
  return { report: { ...report, folders: [folderReport(survey)], complete: false }, code: INCOMPLETE, trouble };
}

/** After each shard: signals and the progress line. */
async function step({ progress, terminal }: Call, done: number, plan: StatesPlan): Promise<void> {
  progress.update("shards", done, shardCount(plan));
  await new Promise((resolve) => setImmediate(resolve));
  terminal.signal.throwIfAborted();
}

function secondsSince(started: number): ShardReport["seconds"] {
  const total = (performance.now() - started) / 1000;
  return { read: 0, compute: 0, write: 0, check: 0, total };
}
