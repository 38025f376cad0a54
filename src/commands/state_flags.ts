/** `--state-in`: a state takes the place of the flags that say what attention is; those that say otherwise are refused by name. */
import type { Attention, GivenProjection, Sizes } from "../attention.ts";
import { alibiSlopes } from "../decay.ts";
import { UsageError } from "../errors.ts";
import { sourceText } from "../fit.ts";
import type { ParamsSource } from "../fitted.ts";
import { readState, refuseStateName, type StateFile } from "../state_file.ts";
import { attentionOfState, type StoredState, withoutState } from "../stored_state.ts";
import { readProjection } from "./attend_files.ts";
import type { Invocation } from "./command.ts";

/** A command line whose flags agree with the state that it goes on from. */
export interface Continued {
  readonly invocation: Invocation;
  /** null: the run begins. */
  readonly before: StateFile | null;
}

/** Flags of kinds of attention that have no state. */
const STATELESS = ["weights", "window", "heavy", "far", "top", "shrink"] as const;

/**
 * Reads the state of `--state-in` (or of another flag). Throws UsageError naming every flag of the command line that contradicts it;
 * what configuration files and the environment say of attention in general yields to it.
 */
export async function continued(invocation: Invocation, flag = "state-in"): Promise<Continued> {
  const { flags } = invocation;
  if (flags[flag] === undefined) return { invocation, before: null };
  const before = await readState(String(flags[flag]));
  await refuseContradictions(invocation, before, flag);
  const { settings, state } = before;
  const unseen = state.keys > 0 && flag === "state-in" && flags.check !== undefined;
  if (unseen) refuseChecks(invocation, before);
  return {
    before,
    invocation: {
      ...invocation,
      flags: {
        ...flags,
        features: settings.features,
        seed: settings.seed ?? flags.seed,
        weights: undefined,
        ...(unseen ? { check: 0, health: false, redraws: 0 } : {}),
      },
    },
  };
}

async function refuseContradictions({ flags, sources }: Invocation, before: StateFile, flag: string): Promise<void> {
  const { settings } = before;
  const refused: string[] = [];
  const compare = (name: string, agrees: boolean, has: unknown, given: unknown = flags[name]) => {
    if (sources[name] === "flag" && !agrees) refused.push(`--${name} is ${given}, the state has ${has ?? "none"}`);
  };
  for (const name of STATELESS) {
    if (sources[name] === "flag") refused.push(`--${name} needs keys or settings that no state has`);
  }
  const { features, numFeatures, projection, norms, seed, scale, decay, kvHeads, params } = settings;
  compare("features", flags.features === features, features);
  compare("compat", flags.compat === "exact", "exact");
  if (settings.projections !== null) {
    compare("num-features", flags["num-features"] === numFeatures, numFeatures);
    compare("projection", flags.projection === projection, projection);
    compare("scale", flags.scale === scale, scale);
    if (!before.given) compare("norms", flags.norms === norms, norms);
    if (!before.given) compare("seed", flags.seed === seed, seed);
  }
  if (sources["projection-matrix"] === "flag") {
    const path = String(flags["projection-matrix"]);
    compare(
      "projection-matrix",
      sameMatrix(await readProjection(path), before.given),
      before.given ? "another" : "none",
    );
  }
  const lambdas = flags.decay === "alibi" ? alibiSlopes(kvHeads) : flags.decay as readonly number[] | undefined;
  const each = lambdas?.length === 1 ? Array.from({ length: kvHeads }, () => lambdas[0]) : lambdas;
  compare("decay", each?.join() === decay?.join(), decay?.join());
  const source = flags.params && sourceText(flags.params as ParamsSource);
  compare("params", source === (params?.source ?? "fixed"), params?.source ?? "fixed", source);
  const centred = params?.centred ? "on" : "off";
  compare("centre", flags.centre === "auto" || flags.centre === centred, centred);
  compare("kv-heads", flags["kv-heads"] === kvHeads, kvHeads);
  if (refused.length === 0) return;
  throw new UsageError(
    `Cannot go on from "${before.path}": ${refused.join("; ")}; leave ${refused.length === 1 ? "it" : "them"} out, ` +
      `or --${flag}`,
  );
}

function sameMatrix(a: GivenProjection, b: GivenProjection | null): boolean {
  if (!b || a.matrices !== b.matrices || a.data.length !== b.data.length) return false;
  return a.data.every((value, at) => value === b.data[at]);
}

/** What is measured against exact softmax cannot be, where keys are only in the state. */
function refuseChecks({ flags, sources }: Invocation, { path, state: { keys } }: StateFile): void {
  const asked = ["check", "health", "redraws"].find((name) => sources[name] === "flag" && Boolean(flags[name])) ??
    (flags["max-error"] === undefined ? null : "max-error");
  if (!asked) return;
  throw new UsageError(
    `Cannot use --${asked} with --state-in "${path}": exact softmax needs its ${keys} key${
      keys === 1 ? "" : "s"
    }, which are only ` +
      `sums there; leave --${asked} out, and measure the error over a file that holds all rows`,
  );
}

/** The attention that a run goes on with. Throws UsageError where decay is to be continued without an order. */
export function attentionOf(before: StoredState, causal: boolean): Attention {
  if (before.settings.decay && !causal) {
    throw new UsageError(`Cannot go on from "${before.path}" without --causal: its keys decay with every row`);
  }
  return attentionOfState(before, causal);
}

/** Throws UsageError for tensors that are no others of a state's rows. */
export function requireSizes(sizes: Sizes, { path, settings }: StoredState): void {
  const names = {
    kvHeads: "key heads",
    headDim: "columns of queries and keys per head",
    valueDim: "columns of values per head",
  };
  for (const [name, words] of Object.entries(names) as [keyof typeof names, string][]) {
    if (sizes[name] === settings[name]) continue;
    throw new UsageError(
      `Cannot go on from "${path}": the inputs have ${sizes[name]} ${words}, the state has ${settings[name]}`,
    );
  }
}

/** Throws UsageError, before anything is computed, where `--state-out` cannot be what is asked for. */
export function refuseStateOut({ flags }: Pick<Invocation, "flags">, attention: Attention): void {
  const out = flags["state-out"];
  if (out === undefined) return;
  refuseStateName(String(out));
  const why = flags.weights === undefined ? withoutState(attention) : "a checkpoint's layer has settings of its own";
  if (why) throw new UsageError(`Cannot use --state-out with ${whatOf(flags, attention)}: ${why}`);
}

const whatOf = (flags: Invocation["flags"], attention: Attention): string => {
  if (flags.weights !== undefined) return "--weights";
  if (attention.nearFar) return "near keys and far fields";
  if (attention.compat !== "exact") return `--compat ${attention.compat}`;
  return attention.shrink !== null && attention.shrink !== undefined ? "--shrink" : `--features ${attention.features}`;
};
