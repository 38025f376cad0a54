/** `performer shard map` and `performer shard apply`: the tasks. Done once they change nothing; killed they leave nothing. */
import { join } from "node:path";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { type Attention, expectedWork } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { changeTime, isFolderAt, makeFolder } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import { applyRows, mapRows, type Seconds, type ShardTask } from "../shard/compute.ts";
import { notePart, openPart, readPart } from "../shard/parts.ts";
import { type PartsPlan, rangesOfShard, requireShard, shardName, type ShardPlan } from "../shard/plan.ts";
import type { ShardReport } from "../shard/report.ts";
import { allShards, attentionStates, oneShard, shardsBefore, type StateFiles, stateOf } from "../shard/states.ts";
import { STATE_SUFFIX } from "../state_file.ts";
import { digestOf, type StoredState } from "../stored_state.ts";
import type { RowRange } from "../tensor.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import type { Progress } from "./progress.ts";
import { openPlanned, plannedAttention, reportOf, shardOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

/** The state of the keys of one shard. */
export async function mapShard(
  plan: ShardPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { flags } = invocation;
  const folder = folderOf(flags, "states/");
  const shard = shardOf(plan, invocation, terminal);
  const rows = rangesOfShard(plan, shard.id).keys;
  const path = join(folder, shardName(plan, shard.id) + STATE_SUFFIX);
  const report = { ...reportOf("map", plan, terminal), shard, rows };
  const states = attentionStates(plan);
  const there = flags.force ? null : await stateThere(states, path, shard.id, terminal);
  if (there) return { report: { ...report, skipped: true, output: { path, bytes: there.bytes } } };
  return await working(plan, invocation, terminal, progress, rows, async (task, given) => {
    const { state, seconds } = await mapRows(task, rows);
    const stored = stateOf(plan, given, state, oneShard(shard.id), path);
    await makeFolder(folder);
    const bytes = await states.write(path, oneShard(shard.id), stored);
    return { ...report, ...worked(task.backend, rows, seconds, terminal), output: { path, bytes } };
  });
}

/** The state that is there already. A damaged one is computed again; that of another plan stays: throws UsageError. */
export async function stateThere<S>(states: StateFiles<S>, path: string, id: number, terminal: Terminal) {
  if (changeTime(path) === null) return null;
  try {
    return await states.read(path, oneShard(id));
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    if (error.message.includes("another plan")) {
      throw new UsageError(`${error.message}; use another folder, or --force to replace it`, { cause: error });
    }
    terminal.err(`${error.message}; it is computed again\n`);
    return null;
  }
}

/** Outputs of the queries of one shard. */
export async function applyShard(
  plan: ShardPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const { flags } = invocation;
  const folder = folderOf(flags, "out/");
  const shard = shardOf(plan, invocation, terminal);
  const stored = await stateFor(plan, shard.id, flags.state as string | undefined);
  const digest = digestOf(stored);
  const rows = rangesOfShard(plan, shard.id).queries;
  const path = join(folder, `${shardName(plan, shard.id)}.npy`);
  const report = { ...reportOf("apply", plan, terminal), shard, rows };
  const there = flags.force ? null : await partThere(plan, folder, shard.id, digest);
  if (there) return { report: { ...report, skipped: true, output: { path, bytes: there.bytes } } };
  return await working(plan, invocation, terminal, progress, rows, async (task) => {
    await makeFolder(folder);
    await using sink = await openPart(plan, folder, shard.id);
    const { counts, seconds } = await applyRows(task, rows, stored.state, sink);
    const bytes = await notePart(plan, folder, shard.id, digest);
    return { ...report, ...worked(task.backend, rows, seconds, terminal), counts, output: { path, bytes } };
  });
}

/** The state that the queries of a shard see. */
async function stateFor(plan: ShardPlan, id: number, path: string | undefined): Promise<StoredState> {
  const { causal } = plan.attention;
  if (path === undefined) {
    throw new UsageError(
      `Missing --state: ${causal ? "the folder that merge --scan wrote" : "the file that merge wrote"}`,
    );
  }
  requireShard(plan, id);
  const folder = isFolderAt(path);
  if (causal !== folder) {
    throw new UsageError(
      causal
        ? `Cannot use --state ${path}: this attention is causal and needs the folder that merge --scan wrote`
        : `Cannot use --state ${path}: it is a folder, expected the file that merge wrote`,
    );
  }
  const states = attentionStates(plan);
  if (!causal) return await states.read(path, allShards(plan));
  return await states.read(join(path, shardName(plan, id) + STATE_SUFFIX), shardsBefore(id));
}

/** The note of a part that is there already and was computed with this state. */
export async function partThere(plan: PartsPlan, folder: string, id: number, digest: string) {
  try {
    const note = await readPart(plan, folder, id);
    if (note && note.plan !== plan.id) {
      throw new UsageError(
        `Cannot write to "${folder}": it holds parts of another plan; use another folder, or --force to replace them`,
      );
    }
    return note?.shard === id && note.state === digest ? note : null;
  } catch (error) {
    if (error instanceof InputError) return null;
    throw error;
  }
}

function folderOf(flags: Invocation["flags"], usual: string): string {
  if (flags.output !== undefined && flags.output !== "-") return String(flags.output);
  throw new UsageError(`Missing -o: name the folder that results of all shards go to, such as ${usual}`);
}

type Given = Awaited<ReturnType<typeof plannedAttention>>["given"];

/** Opens inputs and a backend for `work` and closes them. */
async function working(
  plan: ShardPlan,
  { flags }: Invocation,
  terminal: Terminal,
  progress: Progress,
  { start, end }: RowRange,
  work: (task: ShardTask, given: Given) => Promise<ShardReport>,
): Promise<Done> {
  const candidates = parseBackendList(String(flags.backend));
  await using open = new AsyncDisposableStack();
  const opened = await openPlanned(plan, terminal);
  open.use(opened.files);
  const { attention, given } = await plannedAttention(plan);
  const { sizes, fit } = plan;
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
    work: workOf(attention, plan, end - start),
    hybrid: attention.features === "hybrid",
  });
  open.use(backend);
  const report = await work({
    inputs: opened.inputs,
    attention,
    sizes,
    fit,
    backend,
    tileRows: flags.tile as number | undefined,
    signal: terminal.signal,
    progress: (stage, done, total) => progress.update(stage, done, total),
  }, given);
  return { report: { ...report, backend: { ...report.backend!, refused } } };
}

/** Operations that are about ahead of one half of attention over some rows. */
function workOf(attention: Attention, { sizes }: ShardPlan, rows: number): number {
  return expectedWork(attention, { ...sizes, queryRows: rows, keyRows: 0 });
}

/** What a report says of a task that computed. */
export function worked({ name, device }: Backend, { start, end }: RowRange, seconds: Seconds, terminal: Terminal) {
  return {
    skipped: false,
    backend: { name, device, refused: [] },
    seconds,
    tokensPerSecond: (end - start) / seconds.compute,
    peakBytes: terminal.peakBytes(),
  };
}
