/** The story of `state`: build, merge, look at and slide over states in files. */
import { basename, join } from "node:path";
import { expectedWork } from "../attention.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { isFolderAt, listFolder, makeOutputFolder } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import { sizesOf } from "../run.ts";
import { SlidingWindow } from "../sliding_window.ts";
import { buildStates, needsQueries } from "../state_build.ts";
import { readState, refuseStateName, STATE_SUFFIX, type StateFile, writeState } from "../state_file.ts";
import {
  digestOf,
  fingerprintOf,
  mergePair,
  mergeStates,
  requireLike,
  requireState,
  type StoredState,
} from "../stored_state.ts";
import { attentionFrom, openInputs } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, jsonText, type Lines, linesOf } from "./machine.ts";
import { Progress } from "./progress.ts";
import { ACTION_FLAGS } from "./state.ts";
import { attentionOf, continued, requireSizes } from "./state_flags.ts";
import { type StateLine, STATES_SCHEMA, type StatesReport, statesText } from "./state_words.ts";

/** Runs `performer state`; returns the exit code. */
export async function runState(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [action, ...paths], flags } = invocation;
  const format = formatOf(invocation);
  const lines = linesOf(invocation, terminal, STATES_SCHEMA);
  refuseForeign(invocation, action);
  const started = performance.now();
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let made: Made;
  try {
    const story = { invocation, terminal, paths, progress, collector: new Collector(lines) };
    made = await STORIES[action](story);
  } finally {
    progress.clear();
  }
  const seconds = (performance.now() - started) / 1000;
  const report: StatesReport = { schema: STATES_SCHEMA, command: "state", action, ...made, seconds };
  terminal.found?.(report);
  if (lines) lines.end(report);
  else if (format === "json") terminal.out(jsonText(report));
  else if (!flags.quiet) terminal.out(statesText(report));
  return 0;
}

type Made = Omit<StatesReport, "schema" | "command" | "action" | "seconds">;

interface Story {
  readonly invocation: Invocation;
  readonly terminal: Terminal;
  readonly paths: readonly string[];
  readonly progress: Progress;
  readonly collector: Collector;
}

const STORIES: Readonly<Record<string, (story: Story) => Promise<Made>>> = { build, merge, info, slide };

/** States as they are read or written. */
class Collector {
  readonly #states: StateLine[] = [];
  #first: StoredState | null = null;

  constructor(readonly lines: Lines | null) {}

  add(stored: StoredState, { path, bytes }: { readonly path: string; readonly bytes: number }, digest?: string): void {
    this.#first ??= stored;
    const { rows, state: { keys } } = stored;
    const line: StateLine = { path, rows, keys, bytes, digest: digest ?? digestOf(stored) };
    this.#states.push(line);
    this.lines?.say("state", line);
  }

  /** Writes a state and keeps its line. */
  async write(path: string, stored: StoredState): Promise<void> {
    this.add(stored, { path, bytes: await writeState(path, stored) });
  }

  made(inputs: readonly string[], rest: Partial<Pick<Made, "backend" | "version">> = {}): Made {
    const { settings } = this.#first!;
    const { backend = null, version = null } = rest;
    return { fingerprint: fingerprintOf(this.#first!), settings, states: this.#states, inputs, backend, version };
  }
}

/** Throws UsageError for flags of another action, which would go unheard. */
function refuseForeign({ sources }: Invocation, action: string): void {
  const own = new Set(ACTION_FLAGS[action].map(({ name }) => name));
  if (action !== "info") own.add("output");
  for (const [other, flags] of [...Object.entries(ACTION_FLAGS), ["build", [{ name: "output" }]] as const]) {
    const stray = flags.find(({ name }) => sources[name] === "flag" && !own.has(name));
    if (stray) throw new UsageError(`Cannot use --${stray.name} with state ${action}: it is of state ${other}`);
  }
}

/** Where the result goes. */
function outputOf({ flags }: Invocation, action: string, what = "FILE.safetensors"): string {
  if (flags.output === undefined) {
    throw new UsageError(`Missing -o: say where state ${action} is to write, as -o ${what}`);
  }
  return String(flags.output);
}

async function build({ invocation: asked, terminal, paths, progress, collector }: Story): Promise<Made> {
  if (paths.length > 1) {
    throw new UsageError(`Cannot build a state of ${paths.length} inputs at once: build one of each, then state merge`);
  }
  if (asked.flags["state-in"] !== undefined && asked.flags.like !== undefined) {
    throw new UsageError("Cannot use --like with --state-in, which says itself what attention is: leave --like out");
  }
  const blockRows = (asked.flags["block-rows"] as number | undefined) ?? null;
  const output = outputOf(asked, "build", blockRows === null ? undefined : "FOLDER/ with --block-rows");
  if (blockRows === null) refuseStateName(output);
  else if (asked.flags["state-in"] !== undefined) {
    throw new UsageError("Cannot use --state-in with --block-rows: blocks are states by themselves; use --like");
  }
  const from = asked.flags.like === undefined ? "state-in" : "like";
  const { invocation, before: found } = await continued(asked, from);
  const { flags } = invocation;
  const decays = found ? found.settings.decay !== null : flags.decay !== undefined;
  const wanted = found
    ? attentionOf(found, decays)
    // Keys stay where they are unless that is asked for: states of different files are then of one kind.
    : await attentionFrom({
      ...invocation,
      flags: { ...flags, causal: decays, centre: flags.centre === "on" ? "on" : "off" },
    });
  requireState(wanted);
  const opened = await openInputs(stateInput(invocation, paths), terminal, {
    ahead: true,
    like: found?.settings,
    keysAlone: true,
  });
  await using _files = opened.files;
  if (!opened.queries && !found && needsQueries(wanted)) {
    throw new UsageError(
      `Cannot fit ${wanted.features} to keys alone: give queries too (--q), --params fixed, or the fit of another state (--like)`,
    );
  }
  const sizes = sizesOf(opened.inputs, false);
  if (found) requireSizes(sizes, found);
  const { backend } = await (terminal.openFirst ?? openFirst)(parseBackendList(String(flags.backend)), {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
    work: expectedWork(wanted, { ...sizes, queryRows: 0 }),
    hybrid: wanted.features === "hybrid",
  });
  await using _backend = backend;
  const states = buildStates({
    inputs: opened.inputs,
    attention: wanted,
    sizes,
    backend,
    like: from === "like" ? found : null,
    before: from === "state-in" ? found : null,
    blockRows,
    tileRows: flags.tile as number | undefined,
    progress: (stage, done, total) => progress.update(stage, done, total),
    signal: terminal.signal,
  });
  if (blockRows === null) { for await (const stored of states) await collector.write(output, stored); }
  else {
    const count = Math.ceil(sizes.keyRows / blockRows);
    if (count === 0) throw new UsageError(`Cannot cut "${opened.inputs.k.info.path}" in blocks: it has no rows`);
    const names = Array.from({ length: count }, (_, i) => blockName(i, count));
    await prepareFolder(output, names);
    let i = 0;
    for await (const stored of states) await collector.write(join(output, names[i++]), stored);
  }
  const inputs = [opened.inputs.k, opened.inputs.v].map(({ info }) => info.path);
  return collector.made([...new Set(inputs)], { backend: { name: backend.name, device: backend.device } });
}

/** INPUT as `attend` takes it; there is no causal attention to be read for. */
const stateInput = (invocation: Invocation, paths: readonly string[]): Invocation => {
  return { ...invocation, arguments: paths, flags: { ...invocation.flags, causal: false } };
};

/** "000012.safetensors": in the order of names blocks are in the order of their rows. */
const blockName = (i: number, count: number): string =>
  String(i).padStart(Math.max(6, String(count - 1).length), "0") + STATE_SUFFIX;

/** States of a folder in the order of their names. */
function statesIn(folder: string): string[] {
  return listFolder(folder).filter(({ name, isFolder }) =>
    !isFolder && name.endsWith(STATE_SUFFIX) && !name.startsWith(".")
  )
    .map(({ name }) => join(folder, name));
}

/** Makes a folder. Throws UsageError where states lie in it that would be taken for new ones. */
async function prepareFolder(folder: string, names: readonly string[]): Promise<void> {
  const old = statesIn(folder).find((path) => !names.some((name) => join(folder, name) === path));
  if (old) throw new UsageError(`Cannot write states to "${folder}": "${old}" would lie among them, name a new folder`);
  await makeOutputFolder(folder);
}

async function merge({ invocation, terminal, paths, progress, collector }: Story): Promise<Made> {
  const output = outputOf(invocation, "merge");
  refuseStateName(output);
  const files = paths.flatMap((path) => isFolderAt(path) ? nonEmpty(path) : [path]);
  if (files.length === 0) throw new UsageError("Missing FILE: name the states that are to be merged");
  const seen = new Map<string, string>();
  async function* read(): AsyncGenerator<StateFile> {
    for (const [i, path] of files.entries()) {
      terminal.signal.throwIfAborted();
      const found = await readState(path);
      const again = seen.get(found.digest);
      if (again !== undefined && found.rows > 0 && invocation.flags["allow-duplicates"] !== true) {
        throw new UsageError(
          `Cannot merge "${path}": it has seen the very same rows as "${again}"; leave one out, or give --allow-duplicates`,
        );
      }
      seen.set(found.digest, path);
      progress.update("states", i + 1, files.length);
      yield found;
    }
  }
  await collector.write(output, await mergeStates(read()));
  return collector.made(files);
}

function nonEmpty(folder: string): string[] {
  const files = statesIn(folder);
  if (files.length === 0) {
    throw new InputError(`Cannot read states of "${folder}": no file in it ends in ${STATE_SUFFIX}`);
  }
  return files;
}

async function info({ paths, collector }: Story): Promise<Made> {
  if (paths.length !== 1) throw new UsageError(`Cannot look at ${paths.length} states: name one`);
  const found = await readState(paths[0]);
  collector.add(found, found, found.digest);
  return collector.made([], { version: found.version });
}

async function slide({ invocation, terminal, paths, progress, collector }: Story): Promise<Made> {
  const output = outputOf(invocation, "slide", "FOLDER/");
  const blocks = invocation.flags.blocks as number | undefined;
  if (blocks === undefined) throw new UsageError("Missing --blocks: say how many blocks a window has");
  if (paths.length !== 1 || !isFolderAt(paths[0])) {
    throw new UsageError("Missing FOLDER: name one folder of blocks, as state build --block-rows makes it");
  }
  const files = nonEmpty(paths[0]);
  if (files.length < blocks) {
    throw new UsageError(`Cannot slide a window of ${blocks} blocks over "${paths[0]}": it has ${files.length}`);
  }
  // A window is called by its last block.
  const names = files.slice(blocks - 1).map((path) => basename(path));
  await prepareFolder(output, names);
  const window = new SlidingWindow<StoredState>(blocks, mergePair);
  let first: StoredState | null = null;
  for (const [i, path] of files.entries()) {
    terminal.signal.throwIfAborted();
    const block = await readState(path);
    first ??= block;
    requireLike(block, first, "merge");
    const merged = window.push(block);
    if (merged) await collector.write(join(output, names[i - blocks + 1]), merged);
    progress.update("blocks", i + 1, files.length);
  }
  return collector.made(files);
}
