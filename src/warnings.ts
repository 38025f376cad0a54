/** Warnings are values: what happened, and a remedy that knows which settings are already in force. */
import type { Attention, NearFarSettings } from "./attention.ts";
import type { SessionCounts } from "./backend.ts";
import { FEATURE_MAPS, featureMap } from "./feature_map.ts";
import type { Fit } from "./fitted.ts";
import type { ErrorReport, Report, Warning } from "./report.ts";
import { leaksFuture } from "./rules_table.ts";
import { bytesText, count } from "./words.ts";

/** What a reader of the report must be told. `layered`: inputs come from a checkpoint's layer, which has no near keys. */
export function warningsFor(
  attention: Attention,
  sizes: { queryRows: number; keyRows: number },
  error: ErrorReport | null,
  counts: SessionCounts,
  { fit = null, before = null, layered = false, shrinkFitted = false, gaps = null, memory = null }: {
    readonly fit?: Fit | null;
    /** The state that the run went on from. */
    readonly before?: { readonly path: string; readonly state: { readonly keys: number } } | null;
    readonly gaps?: Report["input"]["gaps"];
    readonly layered?: boolean;
    readonly shrinkFitted?: boolean;
    readonly memory?: Pick<Report, "peakBytes" | "maxBytes"> & { readonly tileRows: number } | null;
  } = {},
): Warning[] {
  const warnings: Warning[] = [];
  if (gaps && gaps.queryRows + gaps.keyRows > 0) {
    const [queries, keys] = [`${count(gaps.queryRows)} rows of queries`, `${count(gaps.keyRows)} of keys or values`];
    warnings.push({
      code: "gaps",
      message: `${queries} and ${keys} hold NaN or infinity: ${
        gaps.policy === "skip" ? "such keys are masked, such queries answered with 0" : "what sees them is NaN"
      }`,
      remedy: `the error is that of the other rows; ${
        gaps.policy === "skip" ? "--on-nan error names the first of them" : "--on-nan skip leaves them out"
      }`,
    });
  }
  if (error && error.skill <= 0) {
    warnings.push({
      code: "no-skill",
      message: "This approximation is no better than ignoring attention: the mean of V is as close to exact softmax",
      remedy: remedyFor(attention, sizes, error, fit, layered),
    });
  } else if (error && error.skill < 0.5) {
    warnings.push({
      code: "low-skill",
      message: "Less than half of what attention does is captured",
      remedy: remedyFor(attention, sizes, error, fit, layered),
    });
  }
  if (
    error && !attention.nearFar && attention.features !== "softmax" && featureMap(attention.features).kernel === "own"
  ) {
    warnings.push({
      code: "own-kernel",
      message:
        `"${attention.features}" defines its own attention; its distance from softmax is a difference, not an error`,
      remedy: "use --features hyperbolic to approximate softmax",
    });
  }
  if (attention.causal && leaksFuture(attention.compat)) {
    warnings.push({
      code: "leaks-future",
      message:
        `Under --compat ${attention.compat} causal rows see the key maximum of the whole sequence: the future leaks into the past`,
      remedy: attention.compat === "lucidrains"
        ? "use --compat lucidrains-causal (maximum over the keys so far) or exact"
        : "use --compat exact",
    });
  }
  if (attention.causal && fit && fit.rows > 0) {
    warnings.push({
      code: "fitted-ahead",
      message:
        `Parameters come from ${
          fit.source === "file" ? "all" : count(fit.rows)
        } rows (${fit.source}), so that early ones see ` +
        "parameters of later ones: the variance of their outputs is influenced, not the kernel that features estimate",
      remedy: "use --params fixed where no row may depend on later ones",
    });
  }
  if (attention.causal && shrinkFitted) {
    warnings.push({
      code: "fitted-ahead",
      message: "λ of --shrink auto is fitted to rows of the whole input: early rows depend on later ones through it",
      remedy: "give λ as a number, such as --shrink 0.9, where no row may depend on later ones",
    });
  }
  if (before && before.state.keys > 0) {
    const { path, state: { keys } } = before;
    warnings.push({
      code: "keys-in-state",
      message:
        `The error is not measured: exact softmax needs the ${count(keys)} key${keys === 1 ? "" : "s"} that are only ` +
        `in "${path}" as sums`,
      remedy: "measure it where all rows are at hand: attend over a file that holds them, without --state-in",
    });
  }
  if (counts.nonPositive > 0) {
    warnings.push({
      code: "non-positive",
      message:
        `${counts.nonPositive} row-heads have a denominator ≤ 0 or beyond float range: their outputs are not averages of V`,
      remedy: !mayBeNegative(attention)
        ? "scale queries and keys down, or use --features softmax"
        : attention.nearFar
        ? "use --far clusters:128, whose weights are all positive"
        : "use a positive map such as --features hyperbolic",
    });
  }
  if (counts.emptyRows > 0) {
    warnings.push({
      code: "empty-rows",
      message: `${counts.emptyRows} row-heads see no key: their output is 0`,
      remedy: attention.nearFar?.far === "none" && attention.nearFar.window === 0 && attention.causal
        ? "give --window 1 or more, or a far field: heavy keys are known only after a block of rows"
        : "check the mask",
    });
  }
  if (memory && memory.maxBytes !== null && memory.peakBytes > memory.maxBytes) {
    warnings.push({
      code: "memory",
      message: `The process took ${bytesText(memory.peakBytes)}, more than the ${
        bytesText(memory.maxBytes)
      } of --max-memory`,
      remedy: memory.tileRows > 64
        ? "use a smaller --tile, and report this: memory is planned so that it does not happen"
        : "report this: memory is planned so that it does not happen",
    });
  }
  return warnings;
}

/** The fitted map of least variance. */
export const BEST = "hyp-aderf+sderf";
/** Near keys and a far field that cost little and serve trained heads. */
export const NEAR_REMEDY = "--window 64 --heavy 64 --far taylor1";
/** For lengths at which it takes no more than minutes. */
export const EXACT_REMEDY = "--features softmax (exact; affordable at this length)";
/** Mean ‖x + y‖² that random features can still serve. */
export const MOST_PHI = 4;

/** The first remedies that are not in force already. */
function remedyFor(
  attention: Attention,
  sizes: { queryRows: number; keyRows: number },
  error: ErrorReport,
  fit: Fit | null,
  layered: boolean,
): string {
  const { nearFar } = attention;
  if (nearFar) return `Try ${nearFarRemedies(nearFar, sizes).join(", ")}`;
  const phi = fit ? fit.heads.reduce((sum, head) => sum + head.phi, 0) / fit.heads.length : error.phi;
  const remedies: string[] = [];
  const map = attention.features === "softmax" || attention.features === "none" ? null : featureMap(attention.features);
  const plain = map !== null && !map.fitted;
  if (plain && map.name !== "hyperbolic" && (map.kernel === "own" || !map.signed || phi > 3)) {
    remedies.push("--features hyperbolic");
  }
  if (map?.kernel === "softmax" && map.name !== BEST && phi > 1 && attention.compat === "exact") {
    remedies.push(`--features ${BEST}`);
  }
  if (map?.kernel === "softmax" && phi <= 3 && map.name === "hyperbolic") {
    remedies.push("--features trigonometric");
  }
  if (map?.projection !== "none") {
    if (attention.projection === "iid" && !attention.given) remedies.push("--projection orthogonal");
    remedies.push(`more features (-m ${attention.numFeatures * 4})`);
  }
  if (!attention.given && !layered && !attention.decay && attention.compat === "exact") remedies.push(NEAR_REMEDY);
  if (sizes.keyRows <= 65536) remedies.push(EXACT_REMEDY);
  const why = phi > MOST_PHI
    ? `queries and keys are large (mean ‖x+y‖² = ${phi.toFixed(1)}; random features need about ${MOST_PHI} or less). `
    : "";
  return `${why}Try ${remedies.join(", ")}`;
}

/** More near keys, a better far field, or exact attention. */
export function nearFarRemedies({ window, heavy, far }: NearFarSettings, sizes: { keyRows: number }): string[] {
  const remedies = [`a wider window (--window ${Math.max(64, 2 * window)})`];
  if (heavy < 64) remedies.push("--heavy 64");
  if (far !== "clusters") remedies.push("--far clusters:128");
  if (sizes.keyRows <= 65536) remedies.push(EXACT_REMEDY);
  return remedies;
}

/** Whether a weight may be below 0 by design; where it may not, a denominator that is none comes of exponents beyond the range of floats. */
function mayBeNegative({ nearFar, features }: Attention): boolean {
  if (nearFar) return nearFar.far !== "none" && nearFar.far !== "clusters";
  return FEATURE_MAPS.find(({ name }) => name === features)?.signed ?? false;
}
