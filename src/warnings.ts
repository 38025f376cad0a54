/** Warnings are values: what happened, and a remedy that knows which settings are already in force. */
import type { Attention, NearFarSettings } from "./attention.ts";
import type { SessionCounts } from "./backend.ts";
import { featureMap } from "./feature_map.ts";
import type { ErrorReport, Warning } from "./report.ts";
import { leaksFuture } from "./rules_table.ts";

/** What a reader of the report must be told. */
export function warningsFor(
  attention: Attention,
  sizes: { queryRows: number; keyRows: number },
  error: ErrorReport | null,
  counts: SessionCounts,
): Warning[] {
  const warnings: Warning[] = [];
  if (error && error.skill <= 0) {
    warnings.push({
      code: "no-skill",
      message: "This approximation is no better than ignoring attention: the mean of V is as close to exact softmax",
      remedy: remedyFor(attention, sizes, error),
    });
  } else if (error && error.skill < 0.5) {
    warnings.push({
      code: "low-skill",
      message: "Less than half of what attention does is captured",
      remedy: remedyFor(attention, sizes, error),
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
  if (counts.nonPositive > 0) {
    warnings.push({
      code: "non-positive",
      message:
        `${counts.nonPositive} row-heads have a denominator ≤ 0 or beyond float range: their outputs are not averages of V`,
      remedy: attention.nearFar
        ? "use --far clusters:128, whose weights are all positive"
        : "use a positive map such as --features hyperbolic",
    });
  }
  if (counts.emptyRows > 0) {
    warnings.push({
      code: "empty-rows",
      message: `${counts.emptyRows} row-heads see no key: their output is 0`,
      remedy: "check the mask",
    });
  }
  return warnings;
}

/** The first remedies that are not in force already. */
function remedyFor(attention: Attention, sizes: { queryRows: number; keyRows: number }, error: ErrorReport): string {
  const { nearFar } = attention;
  if (nearFar) return nearFarRemedy(nearFar, sizes);
  const remedies: string[] = [];
  const map = attention.features === "softmax" ? null : featureMap(attention.features);
  if (map && (map.name !== "hyperbolic") && (map.kernel === "own" || !map.signed || error.phi > 3)) {
    remedies.push("--features hyperbolic");
  }
  if (map?.kernel === "softmax" && error.phi <= 3 && map.name === "hyperbolic") {
    remedies.push("--features trigonometric");
  }
  if (map?.projection !== "none") {
    if (attention.projection === "iid" && !attention.given) remedies.push("--projection orthogonal");
    remedies.push(`more features (-m ${attention.numFeatures * 4})`);
  }
  if (!attention.given && !attention.decay && attention.compat === "exact") {
    remedies.push("--window 64 --heavy 64 --far taylor1");
  }
  if (sizes.keyRows <= 65536) remedies.push("--features softmax (exact; affordable at this length)");
  const why = error.phi > 4
    ? `queries and keys are large (mean ‖x+y‖² = ${error.phi.toFixed(1)}; random features need about 4 or less). `
    : "";
  return `${why}Try ${remedies.join(", ")}`;
}

/** More near keys, a better far field, or exact attention. */
function nearFarRemedy({ window, heavy, far }: NearFarSettings, sizes: { keyRows: number }): string {
  const remedies = [`a wider window (--window ${Math.max(64, 2 * window)})`];
  if (heavy < 64) remedies.push("--heavy 64");
  if (far !== "clusters") remedies.push("--far clusters:128");
  if (sizes.keyRows <= 65536) remedies.push("--features softmax (exact; affordable at this length)");
  return `Try ${remedies.join(", ")}`;
}
