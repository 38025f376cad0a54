/** `performer shard map` and `apply` of a plan of a model: one layer of one shard. Files are where the plan's numbers say. */
import { dirname, join } from "node:path";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { changeTime, makeFolder } from "../bytes.ts";
import { IncompleteError, InputError, UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import { keysOfRows, type LayerTask, rowsThrough } from "../model/shards.ts";
import { FROM_INPUT, type LayerState, layerStates } from "../shard/layer_states.ts";
import {
  type LayerPlaces,
  type LayerPlan,
  layerPlan,
  type ModelPlan,
  placesOf,
  rowsOfPlan,
  seenBy,
} from "../shard/model_plan.ts";
import { notePart, openPart, readPart } from "../shard/parts.ts";
import { placeOf, rangesOfShard, requireFiles, sha256, shardName } from "../shard/plan.ts";
import type { ShardReport } from "../shard/report.ts";
import { allShards, oneShard, rowsOf, shardsBefore } from "../shard/states.ts";
import { STATE_SUFFIX } from "../state_file.ts";
import { digestOf } from "../stored_state.ts";
import type { FloatArray, RowRange } from "../tensor.ts";
import { Stopwatch } from "../timing.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { describedBy, runnable } from "./model_files.ts";
import { readPartOfSequence } from "./model_inputs.ts";
import type { Progress } from "./progress.ts";
import { reportOf, shardOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";
import { partThere, stateThere, worked } from "./shard_tasks.ts";

/** A task: a shard of a layer, where its files are, and what its rows were made of. */
interface Task {
  readonly plan: ModelPlan;
  readonly layer: LayerPlan;
  readonly places: LayerPlaces;
  /** Folder of the rows behind the layer before; null at layer 0. */
  readonly before: { readonly layer: LayerPlan; readonly folder: string } | null;
  readonly id: number;
  readonly rows: RowRange;
  readonly madeOf: string;
  readonly report: ShardReport;
}

/** The layer that `--layer` names. */
export function layerOf({ model: { layers }, path }: ModelPlan, { flags }: Invocation): number {
  const layer = flags.layer as number | undefined;
  const are = `layers 0 to ${layers.length - 1}`;
  if (layer === undefined) throw new UsageError(`Missing --layer: "${path}" is a plan of a model with ${are}`);
  if (layer < layers.length) return layer;
  throw new UsageError(`Cannot use --layer ${layer}: "${path}" is a plan of a model with ${are}`);
}

/** The folder of a run: `-o`, or where the plan is. */
export function rootOf({ path }: ModelPlan, { flags }: Invocation): string {
  if (flags.output === "-") throw new UsageError("Cannot write to stdout: name the folder of the run, or leave -o out");
  return (flags.output as string | undefined) ?? dirname(path);
}

async function taskOf(
  action: "map" | "apply",
  plan: ModelPlan,
  invocation: Invocation,
  terminal: Terminal,
): Promise<Task> {
  const index = layerOf(plan, invocation);
  const root = rootOf(plan, invocation);
  const shard = shardOf(plan, invocation, terminal);
  const rows = rangesOfShard(plan, shard.id).keys;
  const before = index === 0
    ? null
    : { layer: layerPlan(plan, index - 1), folder: placesOf(plan, root, index - 1).rows };
  const report = { ...reportOf(action, plan, terminal), layer: index, shard, rows };
  const madeOf = before ? await stateOfRows(before.layer, before.folder, shard.id) : FROM_INPUT;
  const [layer, places] = [layerPlan(plan, index), placesOf(plan, root, index)];
  return { plan, layer, places, before, id: shard.id, rows, madeOf, report };
}

/** What rows behind a layer were computed with. Throws IncompleteError where they are not there. */
async function stateOfRows(layer: LayerPlan, folder: string, id: number): Promise<string> {
  const note = await readPart(layer, folder, id);
  if (note && note.plan === layer.id && note.shard === id) return note.state;
  throw new IncompleteError(
    `Cannot find the rows of shard ${id} behind layer ${layer.layer} in "${folder}": run apply --layer ${layer.layer} --id ${id}`,
  );
}

/** The state of the keys that one layer makes of the rows of one shard. */
export async function mapLayer(
  plan: ModelPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const task = await taskOf("map", plan, invocation, terminal);
  const { layer, places: { states: folder }, id, rows, madeOf, report } = task;
  const path = join(folder, shardName(plan, id) + STATE_SUFFIX);
  const states = layerStates(layer);
  const there = invocation.flags.force ? null : await stateThere(states, path, id, terminal);
  if (there?.madeOf === madeOf) return { report: { ...report, skipped: true, output: { path, bytes: there.bytes } } };
  return await working(task, invocation, terminal, progress, async (open, watch) => {
    const state = await watch.time("compute", () => keysOfRows(open));
    await makeFolder(folder);
    const kept: LayerState = { state, rows: rows.end - rows.start, madeOf };
    const bytes = await watch.time("write", () => states.write(path, oneShard(id), kept));
    return { output: { path, bytes } };
  });
}

/** The rows of one shard behind one layer, or behind the last layer its outputs. */
export async function applyLayer(
  plan: ModelPlan,
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<Done> {
  const task = await taskOf("apply", plan, invocation, terminal);
  const { layer, places, id, madeOf, report } = task;
  const seen = plan.model.causal ? shardsBefore(id) : allShards(plan);
  const from = seenBy(plan, places, id);
  if (changeTime(from) === null) {
    throw new IncompleteError(`Cannot find the state "${from}": run merge --layer ${layer.layer} first`);
  }
  const { state } = await layerStates(layer).read(from, seen);
  const made = sha256(`${digestOf({ rows: rowsOf(layer, seen), state })} ${madeOf}`);
  const path = join(places.rows, `${shardName(plan, id)}.npy`);
  const there = invocation.flags.force ? null : await partThere(layer, places.rows, id, made);
  if (there) return { report: { ...report, skipped: true, output: { path, bytes: there.bytes } } };
  return await working(task, invocation, terminal, progress, async (open, watch) => {
    await makeFolder(places.rows);
    await using sink = await openPart(layer, places.rows, id);
    await watch.time("compute", () => rowsThrough(open, state, (tile) => sink.write(tile)));
    await watch.time("write", () => sink.finish());
    const bytes = await notePart(layer, places.rows, id, made);
    return { output: { path, bytes } };
  });
}

/** Opens model, rows and a backend for `work` and closes them. */
async function working(
  task: Task,
  { flags }: Invocation,
  terminal: Terminal,
  progress: Progress,
  work: (open: LayerTask, watch: Stopwatch) => Promise<Pick<ShardReport, "output">>,
): Promise<Done> {
  const { plan, layer: { layer }, before, id, rows, report } = task;
  const candidates = parseBackendList(String(flags.backend));
  await requireFiles(plan);
  const watch = new Stopwatch();
  const place = (file: number | null) => file === null ? undefined : placeOf(plan, plan.files[file]);
  const { input: { model, tokens, mask, config, part }, encodings } = plan;
  await using open = new AsyncDisposableStack();
  const container = open.use(await openContainer(place(model)!));
  const description = await describedBy({ config: place(config), part: part ?? undefined }, container);
  const layout = runnable(container.path, description);
  const input = place(tokens)!;
  const sequence = await watch.time(
    "read",
    () => readPartOfSequence(input, place(mask), layout, { ...rows, of: rowsOfPlan(plan), bare: before !== null }),
  );
  const given = before && await watch.time("read", () => readRows(before.layer, before.folder, id));
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
  });
  open.use(backend);
  progress.update(`layer ${layer}`, 0, 1);
  terminal.signal.throwIfAborted();
  const made = await work({
    container,
    description,
    layout,
    model: plan.model,
    backend,
    layer,
    sequence,
    rows: given,
    encodings,
    cols: plan.output.shape.at(-1)!,
    tileRows: flags.tile as number | undefined,
    input,
    signal: terminal.signal,
  }, watch);
  const done = worked(backend, rows, watch.seconds(), terminal);
  return { report: { ...report, ...done, ...made, backend: { ...done.backend, refused } } };
}

/** The rows of a shard behind a layer, `rows × streams·dim`. Throws InputError for another shape. */
async function readRows(layer: LayerPlan, folder: string, id: number): Promise<FloatArray> {
  const path = join(folder, `${shardName(layer, id)}.npy`);
  await using container = await openContainer(path);
  const { shape, data } = await container.readAll(undefined, "f64");
  const { start, end } = rangesOfShard(layer, id).keys;
  const wanted = [end - start, layer.sizes.valueDim];
  if (shape.join() === wanted.join()) return data;
  throw new InputError(`Cannot use "${path}": its shape is [${shape.join(", ")}], expected [${wanted.join(", ")}]`);
}
