/** From a command line to open inputs and an open backend: what `attend` begins with, whether it runs or only says what it would do. */
import { type Attention, decayFor, expectedWork, isExact, isNone, type Sizes } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { openFirst, type OpenSettings, parseBackendList, type Wish } from "../backends/mod.ts";
import { UsageError } from "../errors.ts";
import { AUTO, featureMap } from "../feature_map.ts";
import { planFit, readsAhead } from "../fit.ts";
import type { Refusal } from "../report.ts";
import { sizesOf } from "../run.ts";
import { checkAccepted } from "../run_near_far.ts";
import type { StateFile } from "../state_file.ts";
import { attentionFrom, type OpenedInputs, openInputs } from "./attend_files.ts";
import { chooseLayer, type ChosenLayer, layerAttention, layerSizes } from "./attend_layer.ts";
import type { MemoryPlanner } from "./attend_memory.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { attentionOf, refuseStateOut, requireSizes } from "./state_flags.ts";

export interface OpenedAttention {
  /** The layer of `--weights`. */
  readonly chosen: ChosenLayer | null;
  /** As it was asked for: what is left to choice is not chosen yet. */
  readonly attention: Attention;
  readonly opened: OpenedInputs;
  readonly sizes: Sizes;
  readonly backend: Backend;
  readonly refused: readonly Refusal[];
  /** Rows per tile: `--tile`, or fewer where `--max-memory` wants them. */
  readonly tileRows: number | undefined;
  /** `--max-memory`, and what the process is counted on to take; null without. */
  readonly memory: { readonly maxBytes: number; readonly plannedBytes: number } | null;
}

/**
 * Opens everything, which `open` closes. Flags that contradict each other and tensors that do not fit are refused before a backend is open.
 * @param before the state that is gone on from, with which the flags agree (`continued`).
 */
export async function openAttention(
  invocation: Invocation,
  terminal: Terminal,
  open: AsyncDisposableStack,
  before: StateFile | null,
): Promise<OpenedAttention> {
  const { flags } = invocation;
  const { chosen, attention } = await askedAttention(invocation, open, before);
  const auto = attention.features === AUTO;
  const fitted = before ? null : planFit(attention, chosen !== null);
  const { shrink, nearFar } = attention;
  const ahead = readsAhead(fitted) || auto || shrink === "auto" || nearFar?.far === "clusters";
  const opened = await openInputs(invocation, terminal, { ahead, like: before?.settings });
  open.use(opened.files);
  const given = chosen ? null : sizesOf(opened.inputs, attention.causal);
  if (given) decayFor(attention, given);
  if (given && before) requireSizes(given, before);
  const sizes = given ?? layerSizes(chosen!, opened.inputs.q.info.rows);
  const work = given ? expectedWork(attention, given) : undefined;
  if (given && typeof shrink === "object" && shrink && shrink.length !== given.heads) {
    throw new UsageError(
      `Cannot use --shrink with ${shrink.length} numbers: the queries have ${given.heads} head${
        given.heads === 1 ? "" : "s"
      }`,
    );
  }
  const planner = flags["max-memory"] === undefined
    ? null
    : new (await import("./attend_memory.ts")).MemoryPlanner(invocation, terminal, {
      attention,
      sizes,
      opened,
      layered: chosen !== null,
    });
  const known = {
    work,
    accept: (candidate: Backend) => checkAccepted(candidate, attention, sizes, flags.tile as number | undefined),
  };
  const { backend, refused } = await openBackend(invocation, terminal, attention, known, planner);
  open.use(backend);
  return {
    chosen,
    attention,
    opened,
    sizes,
    backend,
    refused,
    tileRows: planner?.plan.tileRows ?? flags.tile as number | undefined,
    memory: planner && { maxBytes: planner.ceiling, plannedBytes: planner.plan.bytes },
  };
}

/** The first backend whose run stays below a ceiling, with as many threads as that allows. */
async function openBelow(
  planner: MemoryPlanner,
  wishes: readonly Wish[],
  settings: OpenSettings,
  opening: typeof openFirst,
): Promise<{ backend: Backend; refused: readonly Refusal[] }> {
  const known = planner.candidates(wishes);
  const accept = (candidate: Backend) => {
    settings.accept?.(candidate);
    planner.accept(candidate);
  };
  const first = await opening(known.wishes, { ...settings, accept }).catch((error) => {
    throw planner.refusal(error);
  });
  const refused = [...known.refused, ...first.refused];
  const { threads } = planner.plan;
  if (threads >= (first.backend.threads ?? 1)) return { ...first, refused };
  await first.backend[Symbol.asyncDispose]();
  const wish = known.wishes.filter(({ name }) => name === first.backend.name);
  return { ...await opening(wish, { ...settings, threads, accept: settings.accept }), refused };
}

/** What the flags say, before any input is open. Throws UsageError where they contradict each other; `open` closes a checkpoint. */
export async function askedAttention(
  invocation: Invocation,
  open: AsyncDisposableStack,
  before: StateFile | null,
): Promise<Pick<OpenedAttention, "chosen" | "attention">> {
  const { flags } = invocation;
  parseBackendList(String(flags.backend));
  const chosen = open.use(await chooseLayer(invocation));
  const attention = before
    ? attentionOf(before, flags.causal === true)
    : chosen
    ? await layerAttention(chosen, invocation)
    : await attentionFrom(invocation);
  refuseContradictions(flags, attention);
  refuseStateOut(invocation, attention);
  return { chosen, attention };
}

/**
 * Opens the first backend of `--backend` that will do, or takes one that is open. Throws UnsupportedError where none does, UsageError where
 * none stays below the ceiling of `planner`.
 */
export async function openBackend(
  { flags }: Invocation,
  terminal: Terminal,
  attention: Attention,
  ahead: Pick<OpenSettings, "work" | "accept">,
  planner: MemoryPlanner | null = null,
): Promise<Pick<OpenedAttention, "backend" | "refused">> {
  const wishes = parseBackendList(String(flags.backend));
  const settings = {
    threads: flags.threads as number | undefined,
    profile: flags.profile === true,
    speeds: speedsFile(terminal.env),
    nearFar: Boolean(attention.nearFar) || attention.features === AUTO,
    hybrid: attention.features === "hybrid",
    ...ahead,
  };
  const opening = terminal.openFirst ?? openFirst;
  return planner ? await openBelow(planner, wishes, settings, opening) : await opening(wishes, settings);
}

/** Flags that cannot be kept together are refused before anything is computed. */
function refuseContradictions(flags: Invocation["flags"], attention: Attention): void {
  if (flags.health === true && flags.check === 0) {
    throw new UsageError("Cannot use --health without a check: leave --check 0 out");
  }
  if (flags["max-error"] !== undefined && flags.check === 0 && !isExact(attention)) {
    throw new UsageError("Cannot use --max-error without a check: leave --check 0 out");
  }
  if (attention.features === AUTO) {
    const other = ["compat", "projection-matrix", "weights"].find((name) => {
      return flags[name] !== undefined && flags[name] !== "exact";
    });
    if (other) throw new UsageError(`Cannot use --features auto with --${other}: the features are given`);
    if (Number(flags.redraws) > 0) throw new UsageError("Cannot use --redraws with --features auto: name the features");
  }
  if (isNone(attention)) return refuseBeside(flags);
  if (attention.nearFar || attention.features === AUTO) return;
  const fixed = attention.given !== null || isExact(attention) || featureMap(attention.features).projection === "none";
  if (attention.compat !== "exact") {
    if (isExact(attention)) throw new UsageError(`Cannot use --compat ${attention.compat} with exact attention`);
    if (Number(flags.redraws) > 0) throw new UsageError(`Cannot use --redraws with --compat ${attention.compat}`);
  }
  if (Number(flags.redraws) > 0 && fixed) {
    throw new UsageError("Cannot use --redraws: there is no random projection to draw again");
  }
}

/** What no attention at all cannot be asked for. */
function refuseBeside(flags: Invocation["flags"]): void {
  const asked = ["compat", "projection-matrix", "weights", "mask", "shrink", "max-error", "health"];
  const other = asked.find((name) => flags[name] !== undefined && flags[name] !== false && flags[name] !== "exact");
  if (other) throw new UsageError(`Cannot use --features none with --${other}: its output is V as it is`);
  if (Number(flags.redraws) > 0) {
    throw new UsageError("Cannot use --redraws: there is no random projection to draw again");
  }
}
