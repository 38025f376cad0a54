/** What the figures of a head mean, and what to do about it. Pure; the rules are own, from the error formulas of closed_forms.ts and fitted.ts. */
import type { Attention, Sizes } from "./attention.ts";
import { FEATURE_MAPS } from "./feature_map.ts";
import type { HeadHealth } from "./report.ts";
import { BEST, EXACT_REMEDY, MOST_PHI, NEAR_REMEDY, nearFarRemedies } from "./warnings.ts";
import { figure } from "./words.ts";

export type HeadFigures = Omit<HeadHealth, "verdict" | "summary" | "advice">;

export interface AdviceContext {
  readonly attention: Attention;
  readonly sizes: Pick<Sizes, "keyRows">;
  /** Inputs come from a checkpoint's layer. */
  readonly layered: boolean;
  /** The settings are those of `--features auto`. */
  readonly chosen: boolean;
  /** Keys are moved already. */
  readonly centred: boolean;
  /** Σ H(λ) of another map on this head; null where the attention makes no features of softmax. */
  readonly predict: ((features: string, centred: boolean) => number) | null;
}

/** From these skills on a head is good, and fair. */
const GOOD = 0.9;
const FAIR = 0.5;
/** Below this relative L2 a head is good whatever its skill: it has little to be skilful about. */
const SMALL_ERROR = 0.01;
/** Fewer effective features than this, or than a quarter of few features, make an estimate a matter of luck. */
const FEW_FEATURES = 10;
/** A remedy must lower Σ H by this: e^{0.3} = 1.35 times as many features would do the same. */
const WORTHWHILE = 0.3;
/** "About 4" ends here, so that heads on either side of 4 are not told different things. */
const TOO_LARGE = 1.25 * MOST_PHI;
/** More features than this many times those of the run are no advice. */
const MOST_TIMES = 16;

/** Judges one head. */
export function adviseHead(
  head: HeadFigures,
  context: AdviceContext,
): Pick<HeadHealth, "verdict" | "summary" | "advice"> {
  const { attention } = context;
  if (head.emptyRows === 1) {
    return { verdict: "empty", summary: "empty: no row sees a key", advice: "check the mask" };
  }
  const map = FEATURE_MAPS.find(({ name }) => name === attention.features);
  if (map?.kernel === "own") {
    const summary = `own: ${map.name} is an attention of its own, at relative L2 ${
      figure(head.relativeL2)
    } from softmax`;
    return { verdict: "own", summary, advice: "use --features hyperbolic to approximate softmax" };
  }
  const { skill, relativeL2 } = head;
  const small = relativeL2 <= SMALL_ERROR;
  const verdict = small || skill >= GOOD ? "good" : skill >= FAIR ? "fair" : skill > 0 ? "poor" : "no-skill";
  const outcome = small && !(skill >= GOOD)
    ? `relative L2 ${figure(relativeL2)}, attention is nearly the mean of V`
    : verdict === "no-skill"
    ? "the mean of V is no farther from softmax"
    : `captures ${percent(skill)}`;
  const few = fewFeatures(head, attention);
  if (verdict === "good") {
    const advice = few ? `${few}: another seed may do worse, --redraws 5 tells` : null;
    return { verdict, summary: `good: ${outcome}`, advice };
  }
  const cause = causeOf(head, context) ?? few;
  const remedies = attention.nearFar
    ? nearFarRemedies(attention.nearFar, context.sizes)
    : featureRemedies(head, context);
  return {
    verdict,
    summary: `${verdict === "no-skill" ? "no skill" : verdict}: ${outcome}${cause ? `; ${cause}` : ""}`,
    advice: `use ${orList(remedies.slice(0, 3))}`,
  };
}

/** "a, b or c". */
function orList(words: readonly string[]): string {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

/** "98 %", and never 100 % where something is missing. */
function percent(part: number): string {
  const text = (100 * part).toFixed(part > 0.995 ? 2 : 0);
  return `${Number(text) === 100 && part < 1 ? "> 99.99" : text} %`;
}

function fewFeatures({ effectiveFeatures }: HeadFigures, { numFeatures }: Attention): string | null {
  if (!effectiveFeatures || !(effectiveFeatures.median < Math.min(FEW_FEATURES, numFeatures / 4))) return null;
  return `${figure(effectiveFeatures.median)} of ${numFeatures} features count in the median row`;
}

/** Whether sizes are beyond what features can serve: bounded and signed ones by their own variance, others by φ̄. */
function tooLarge({ phi, logVariance }: HeadFigures, { attention }: AdviceContext): boolean {
  return bySize(attention) ? phi !== null && phi > TOO_LARGE : logVariance !== null && logVariance > TOO_LARGE;
}

const bySize = ({ features }: Attention): boolean => {
  const map = FEATURE_MAPS.find(({ name }) => name === features);
  return map?.family === "exp" && !map.fitted;
};

function causeOf(head: HeadFigures, context: AdviceContext): string | null {
  if (head.nonPositive !== null && head.nonPositive > 0) {
    return `${percent(head.nonPositive)} of denominators are ≤ 0`;
  }
  if (!tooLarge(head, context)) return null;
  const what = bySize(context.attention)
    ? `φ̄ = ${figure(head.phi!)}${context.centred ? " after centring" : ""}, random features need`
    : `Σ H = ${figure(head.logVariance!)}, such features need`;
  return `${what} about ${MOST_PHI} or less`;
}

/** What helps a head of random features, the most likely first. */
function featureRemedies(head: HeadFigures, context: AdviceContext): string[] {
  const { attention, sizes: { keyRows }, layered, predict } = context;
  const { compat, given, numFeatures, causal, features } = attention;
  const map = FEATURE_MAPS.find(({ name }) => name === features);
  const free = compat === "exact" && !given;
  const remedies: string[] = [];
  const { logVariance, skill } = head;
  // Features that are named replace those of a checkpoint's layer, numerics and all.
  if (predict && (free || layered) && logVariance !== null) {
    const centring = causal || layered ? " --centre on" : "";
    const options = [
      ...(context.centred || !free ? [] : [{ flags: "--centre on", after: predict(features, true) }]),
      ...(features === BEST ? [] : [{ flags: `--features ${BEST}${centring}`, after: predict(BEST, true) }]),
    ];
    const helpful = options.filter(({ after }) => after <= TOO_LARGE && after < logVariance - WORTHWHILE);
    remedies.push(...helpful.map(({ flags, after }) => {
      return `${flags} (Σ H ${figure(after)} instead of ${figure(logVariance)})`;
    }));
  }
  if (map?.signed && (head.nonPositive ?? 0) > 0) remedies.push("--features hyperbolic");
  if (!tooLarge(head, context) && map && map.projection !== "none") {
    // The squared error falls as 1/m.
    const wanted = 2 ** Math.ceil(Math.log2(numFeatures * (1 - skill) / (1 - GOOD)));
    if (wanted <= Math.min(MOST_TIMES * numFeatures, keyRows / 2)) remedies.push(`-m ${wanted}`);
  }
  if (compat !== "exact" && !layered) remedies.push("--compat exact");
  if (free && !layered) remedies.push(NEAR_REMEDY);
  if (free && !layered && !context.chosen) remedies.push("--features auto");
  if (keyRows <= 65536) remedies.push(EXACT_REMEDY);
  if (remedies.length === 0) remedies.push(`more features (-m ${4 * numFeatures})`);
  return remedies;
}
