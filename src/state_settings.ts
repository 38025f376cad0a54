/** Settings of a state as its file has them (state_file.ts), every one of which is checked before it decides a size. */
import { PerformerError } from "./errors.ts";
import { featureMap, featuresOf, projectionsFor } from "./feature_map.ts";
import { parseSource, sourceText } from "./fit.ts";
import { PROJECTIONS } from "./projection.ts";
import { GIVEN, settingsText, type StoredSettings } from "./stored_state.ts";
import { brief } from "./words.ts";

/**
 * A W is drawn to check a fingerprint, before it is known whether what a file says is true: it may have so many numbers, and cost so many
 * multiplications, or so many for each number that the file does hold.
 */
const MOST_DRAWN = { numbers: 2 ** 24, products: 2 ** 28, numbersEach: 2 ** 6, productsEach: 2 ** 12 };
/** Letters of settings. */
const MOST_LETTERS = 2 ** 20;

/** What stops a file from being a state, before its name is put in front. */
export class Broken extends Error {}

/** Settings as a file has them; whatever stands in them is checked, as the fingerprint of a made-up file may well agree with itself. */
export function parseSettings(text: string | undefined): StoredSettings {
  let found: Record<string, unknown>;
  if ((text?.length ?? 0) > MOST_LETTERS) throw new Broken(`its settings have more than ${MOST_LETTERS} letters`);
  try {
    found = JSON.parse(text ?? "");
  } catch {
    throw new Broken("its settings are not JSON");
  }
  const settings = found as unknown as StoredSettings;
  const wrong = (name: string, expected: string): never => {
    throw new Broken(`settings.${name} is ${brief(found[name])}, expected ${expected}`);
  };
  const whole = (name: keyof StoredSettings) => {
    if (!(Number.isSafeInteger(found[name]) && (found[name] as number) >= 1)) {
      wrong(name, "a whole number of at least 1");
    }
  };
  if (typeof found !== "object" || found === null || typeof settings.features !== "string") {
    throw new Broken("its settings name no features");
  }
  const map = featureMap(settings.features);
  if (map.angular) wrong("features", "a map whose state can be kept");
  for (const name of ["numFeatures", "kvHeads", "headDim", "valueDim"] as const) whole(name);
  if (settings.compat !== "exact") wrong("compat", "exact");
  const { headDim, kvHeads, numFeatures, projections, projection, norms, seed, scale, decay, params } = settings;
  const plain = map.projection === "none";
  const given = projection === GIVEN;
  const drawn = !plain && !given;
  if (
    plain ? projection !== null : !given && !(typeof projection === "string" && Object.hasOwn(PROJECTIONS, projection))
  ) {
    wrong("projection", plain ? "null" : `${GIVEN} or one of ${Object.keys(PROJECTIONS).join(", ")}`);
  }
  if (plain ? projections !== null : projectionsFor(map, numFeatures, headDim) !== projections) {
    wrong("projections", plain ? "null" : `${projectionsFor(map, numFeatures, headDim)} for ${numFeatures} features`);
  }
  if (numFeatures !== (plain ? headDim : featuresOf(map, projections!))) wrong("numFeatures", `${headDim}`);
  if (drawn ? norms !== (map.norms ?? norms) || (norms !== "chi" && norms !== "sqrtd") : norms !== null) {
    wrong("norms", drawn ? map.norms ?? "chi or sqrtd" : "null");
  }
  if (drawn ? !(Number.isSafeInteger(seed) && seed! >= 0) : seed !== null) {
    wrong("seed", drawn ? "a whole number of at least 0" : "null");
  }
  if (plain ? scale !== null : !(typeof scale === "number" && scale > 0)) {
    wrong("scale", plain ? "null" : "a number above 0");
  }
  if (decay !== null) {
    const fine = Array.isArray(decay) && decay.length === kvHeads &&
      decay.every((lambda) => typeof lambda === "number" && lambda >= 0);
    if (!fine) wrong("decay", `null, or a number of at least 0 for each of ${kvHeads} key heads`);
  }
  if (drawn) requireAffordable(settings);
  requireParams(params, map.fitted !== undefined, map.kernel === "softmax", wrong);
  if (settingsText(settings) !== text) {
    throw new Broken(`its settings are ${text}, expected the form ${settingsText(settings)}`);
  }
  return settings;
}

/** Throws where drawing W would take much more than reading the file, whose sizes are those of the settings or it is refused. */
function requireAffordable({ projections, headDim, kvHeads, numFeatures, valueDim }: StoredSettings): void {
  const held = kvHeads * numFeatures * valueDim;
  const numbers = projections! * headDim * kvHeads;
  const products = numbers * Math.min(projections!, headDim);
  const { numbersEach, productsEach } = MOST_DRAWN;
  if (
    numbers <= Math.max(MOST_DRAWN.numbers, numbersEach * held) &&
    products <= Math.max(MOST_DRAWN.products, productsEach * held)
  ) return;
  throw new Broken(
    `its projection would have ${projections} × ${headDim} numbers for each of ${kvHeads} key heads, too many for ${held} sums`,
  );
}

function requireParams(
  params: StoredSettings["params"],
  fitted: boolean,
  softmax: boolean,
  wrong: (name: string, expected: string) => never,
): void {
  if (params === null) {
    if (fitted) wrong("params", "those that the map was fitted to");
    return;
  }
  const form = "a source such as sample:4096, how many rows, and whether keys are centred";
  if (typeof params !== "object" || typeof params.centred !== "boolean" || !softmax) {
    wrong("params", softmax ? form : "null");
  }
  if (!(Number.isSafeInteger(params.rows) && params.rows >= 0) || typeof params.source !== "string") {
    wrong("params", form);
  }
  try {
    const { kind } = parseSource(params.source);
    const bare = kind === "fixed";
    if (sourceText(parseSource(params.source)) !== params.source) wrong("params", form);
    if (bare && (!fitted || params.centred || params.rows !== 0)) wrong("params", form);
    if (!bare && !fitted && !params.centred) wrong("params", "null where nothing is fitted");
  } catch (error) {
    if (error instanceof PerformerError) wrong("params", form);
    throw error;
  }
}
