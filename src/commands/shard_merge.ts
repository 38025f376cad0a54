/** `performer shard merge`, `gather` and `status`: what there is of all shards, and one of it. */
import { join } from "node:path";
import { isFolderAt, listFolder, makeFolder } from "../bytes.ts";
import { IncompleteError, UsageError } from "../errors.ts";
import { openSink, outputFormat } from "../formats/sink.ts";
import { gatherParts, surveyParts } from "../shard/parts.ts";
import { shardCount, shardName, type ShardPlan } from "../shard/plan.ts";
import { readPlan } from "../shard/plan_file.ts";
import { folderReport, remedy, type ShardReport, troubleIn } from "../shard/report.ts";
import {
  allShards,
  isComplete,
  mergeShards,
  shardsBefore,
  type Survey,
  surveyStates,
  writeShards,
} from "../shard/states.ts";
import { refuseStateName, STATE_SUFFIX } from "../state_file.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf } from "./machine.ts";
import type { Progress } from "./progress.ts";
import { reportOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

const INCOMPLETE = new IncompleteError("").exitCode;

/** One state of all shards, or with --scan one for each shard, of those before it. */
export async function mergeStatesOf(invocation: Invocation, terminal: Terminal, progress: Progress): Promise<Done> {
  const { arguments: [name, folder], flags } = invocation;
  const scan = flags.scan === true;
  if (flags.output === undefined || flags.output === "-") {
    throw new UsageError(`Missing -o: name ${scan ? "a folder such as prefix/" : "a file such as kv.safetensors"}`);
  }
  const output = String(flags.output);
  if (!scan) refuseStateName(output);
  const plan = await readPlan(name);
  if (scan && !plan.attention.causal) {
    throw new UsageError(`Cannot use --scan with "${name}": its attention is not causal, every query sees all keys`);
  }
  const started = performance.now();
  const survey = await surveyStates(plan, folder);
  const report = reportOf("merge", plan, terminal);
  if (!isComplete(survey)) return incomplete(report, survey, "map", invocation);
  if (scan) await makeFolder(output);
  const write = async (id: number, before: Parameters<typeof writeShards>[3]) => {
    if (!scan) return 0;
    return await writeShards(join(output, shardName(plan, id) + STATE_SUFFIX), plan, shardsBefore(id), before);
  };
  const { state, damaged, bytes } = await mergeShards(
    plan,
    folder,
    write,
    (done) => step(progress, terminal, done, plan),
  );
  if (!state) {
    const done = survey.done.filter((id) => !damaged.includes(id));
    return incomplete(report, { ...survey, done, damaged }, "map", invocation);
  }
  const written = scan ? bytes.written : await writeShards(output, plan, allShards(plan), state);
  return {
    report: {
      ...report,
      folders: [folderReport(survey)],
      complete: true,
      bytesRead: bytes.read,
      output: { path: output, bytes: written },
      seconds: secondsSince(started),
      peakBytes: terminal.peakBytes(),
    },
  };
}

/** All outputs as one tensor. */
export async function gatherPartsOf(invocation: Invocation, terminal: Terminal, progress: Progress): Promise<Done> {
  const { arguments: [name, folder], flags } = invocation;
  if (flags.output === undefined) throw new UsageError("Missing -o: name a file such as out.npy, or - for stdout");
  const output = String(flags.output);
  outputFormat(output); // refuses an unknown suffix before anything is read
  const plan = await readPlan(name);
  const started = performance.now();
  const survey = await surveyParts(plan, folder);
  const report = reportOf("gather", plan, terminal);
  if (!isComplete(survey)) return incomplete(report, survey, "apply", invocation);
  const { output: { dtype, shape }, sizes: { heads, valueDim }, input: { layout } } = plan;
  await using sink = await openSink(output, { dtype, shape, heads, width: valueDim, layout });
  await gatherParts(plan, folder, sink, (done) => step(progress, terminal, done, plan));
  const bytes = shape.reduce((product, n) => product * n, { f16: 2, f32: 4, f64: 8 }[dtype]);
  return {
    toStdout: output === "-",
    report: {
      ...report,
      folders: [folderReport(survey)],
      complete: true,
      output: { path: output === "-" ? "stdout" : output, bytes },
      seconds: secondsSince(started),
      peakBytes: terminal.peakBytes(),
    },
  };
}

/** What there is of a plan in some folders of states, prefixes or parts. */
export async function statusOf(invocation: Invocation, terminal: Terminal): Promise<Done> {
  const { arguments: [name, ...folders] } = invocation;
  const plan = await readPlan(name);
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
function incomplete(report: ShardReport, survey: Survey, action: "map" | "apply", invocation: Invocation): Done {
  const out = remedy(survey, action);
  const trouble = `Cannot ${report.action}: ${survey.done.length} of ${report.plan.shards} shards are done in ` +
    `"${survey.folder}", ${troubleIn(survey)}${out && `; ${out}`}`;
  if (formatOf(invocation) === "text") throw new IncompleteError(trouble);
  return { report: { ...report, folders: [folderReport(survey)], complete: false }, code: INCOMPLETE, trouble };
}

/** After each shard: signals and the progress line. */
async function step(progress: Progress, { signal }: Terminal, done: number, plan: ShardPlan): Promise<void> {
  progress.update("shards", done, shardCount(plan));
  await new Promise((resolve) => setImmediate(resolve));
  signal.throwIfAborted();
}

function secondsSince(started: number): ShardReport["seconds"] {
  const total = (performance.now() - started) / 1000;
  return { read: 0, compute: 0, write: 0, check: 0, total };
}
