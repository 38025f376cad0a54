/** Flags of near-and-far attention: near keys exactly, the others by a cheap far field. */
import type { NearFarSettings } from "../attention.ts";
import { UsageError } from "../errors.ts";
import { AUTO, EXACT, FAR_FIELDS, type FarField, FEATURE_MAPS, TAYLOR_MAPS } from "../feature_map.ts";
import { nearest } from "../words.ts";
import type { Flag, Invocation } from "./command.ts";
import { listOf, wholeNumber } from "./flags.ts";

interface FarChoice {
  readonly far: FarField;
  readonly clusters: number;
}

/** "taylor1", "clusters:128". */
export function parseFar(text: string): FarChoice {
  const [name, count, ...rest] = text.split(":");
  if (name === "clusters") {
    if (rest.length > 0) throw new UsageError("expected clusters:C, such as clusters:128");
    return { far: "clusters", clusters: count === undefined ? 128 : wholeNumber(1)(count) };
  }
  if (FEATURE_MAPS.some((map) => map.name === name)) {
    throw new UsageError(
      "random features are no far field: they need more arithmetic per near key than the key itself, and are less accurate than " +
        "taylor1; use taylor1, taylor2, hermite2 or clusters:C",
    );
  }
  const far = FAR_FIELDS.find((field) => field === name);
  if (!far || count !== undefined) {
    const near = nearest(name, FAR_FIELDS);
    throw new UsageError(
      `${near && near !== name ? `did you mean ${near}? ` : ""}expected taylor1, taylor2, hermite2, clusters:C or none`,
    );
  }
  return { far, clusters: 0 };
}

export const NEAR_FAR_FLAGS: readonly Flag[] = [
  {
    name: "window",
    value: "W",
    summary: "keys fewer than W rows away exactly, the others by --far",
    parse: wholeNumber(0),
  },
  {
    name: "heavy",
    value: "H",
    summary: "the H keys farthest from the mean key exactly, for every query",
    parse: wholeNumber(0),
  },
  {
    name: "far",
    value: "NAME",
    summary: "field of the other keys: taylor1 (default with --window, --heavy), taylor2, hermite2, clusters:C or none",
    offers: ["taylor1", "taylor2", "hermite2", "clusters:64", "clusters:128", "none"],
    parse: parseFar,
  },
  {
    name: "top",
    value: "K",
    summary: "with --far clusters:C, all keys of the K heaviest clusters exactly",
    parse: wholeNumber(0),
  },
  {
    name: "shrink",
    value: "L",
    summary: "blend outputs with the mean of V: auto fits the share per head, or a number from 0 to 1",
    offers: ["auto"],
    parse: parseShrink,
  },
];

/** "auto", "0.9", or one λ per head: "0.9,1,0.85". */
export function parseShrink(text: string): "auto" | number | readonly number[] {
  if (text === "auto") return text;
  const lambdas = text.split(",").map((part) => part.trim() === "" ? NaN : Number(part));
  if (!lambdas.every((lambda) => lambda >= 0 && lambda <= 1)) {
    throw new UsageError("expected auto, a number from 0 (the mean of V) to 1 (no shrinkage), or one per head");
  }
  return lambdas.length === 1 ? lambdas[0] : lambdas;
}

/** The flags for commands that measure several settings: `--far` lists fields, and nothing is shrunk. */
export const NEAR_FAR_LIST_FLAGS: readonly Flag[] = NEAR_FAR_FLAGS.filter(({ name }) => name !== "shrink").map((flag) =>
  flag.name !== "far" ? flag : {
    ...flag,
    value: "LIST",
    summary:
      "fields of the other keys, each: taylor1 (default with --window, --heavy), taylor2, hermite2, clusters:C, none",
    list: true,
    parse: listOf(parseFar),
  }
);

/**
 * What the flags ask for beside a list of maps: the far fields that `names` holds, alone, and near keys with each field of `--far`.
 * `--top` is of the fields with clusters.
 */
export function nearFarList(
  { flags, sources }: Pick<Invocation, "flags" | "sources">,
  names: readonly string[],
): NearFarSettings[] {
  const alone = TAYLOR_MAPS.filter((name) => names.includes(name)).map((far) => {
    return { window: 0, heavy: 0, far, clusters: 0, top: 0 };
  });
  const fields = [flags.far as FarChoice | readonly FarChoice[] | undefined].flat();
  const clustered = fields.some((choice) => choice?.far === "clusters");
  const near = fields.flatMap((far) => {
    const top = clustered && far?.far !== "clusters" ? undefined : flags.top;
    // Redraws are those of the feature maps beside it.
    const own = { ...flags, far, top, features: "", redraws: 0 };
    return nearFarFrom({ flags: own, sources: { ...sources, features: "default" } }) ?? [];
  });
  return [...alone, ...near];
}

/** What the flags ask for; null where they ask for random features or exact attention. */
export function nearFarFrom({ flags, sources }: Pick<Invocation, "flags" | "sources">): NearFarSettings | null {
  const given = ["window", "heavy", "far", "top"].filter((name) => flags[name] !== undefined);
  const features = String(flags.features);
  const own = TAYLOR_MAPS.find((map) => map === features);
  if (given.length === 0 && !own) return null;
  const refuse = (what: string) => new UsageError(`Cannot use --${given[0] ?? "features"} ${what}`);
  if (flags.compat !== undefined && flags.compat !== "exact") throw refuse(`with --compat ${flags.compat}`);
  if (flags.decay !== undefined) {
    throw refuse("with --decay: near keys and far fields have none; use random features or --features softmax");
  }
  if (flags["projection-matrix"] !== undefined) throw refuse("with --projection-matrix: no random features are used");
  if (flags.weights !== undefined) throw refuse("with --weights: a checkpoint's layer has its own attention");
  if (Number(flags.redraws) > 0) throw refuse("with --redraws: there is no random projection to draw again");
  const chosen = flags.far as FarChoice | undefined;
  if (sources.features !== "default" && chosen && own !== chosen.far) {
    throw refuse(`together with --features ${features}: give the one or the other`);
  }
  if (features === AUTO) throw refuse("with --features auto: it chooses near keys and the far field itself");
  if (features === EXACT) throw refuse("with --features softmax: there every key counts exactly");
  if (sources.features !== "default" && !own) {
    throw refuse(
      `with --features ${features}: random features are no far field; leave --features out, or give taylor1`,
    );
  }
  const { far, clusters } = chosen ?? { far: own ?? "taylor1", clusters: 0 };
  const [window, heavy, top] = [flags.window, flags.heavy, flags.top].map((value) => Number(value ?? 0));
  if (top > 0 && far !== "clusters") throw new UsageError("Cannot use --top without clusters: give --far clusters:C");
  if (far === "none" && window + heavy === 0) {
    throw new UsageError("Cannot use --far none alone: no key would be seen; give --window W or --heavy H");
  }
  return { window, heavy, far, clusters, top: Math.min(top, clusters) };
}
