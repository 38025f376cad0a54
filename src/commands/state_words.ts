/** What `state` reports: as data, and in words. */
import type { StoredSettings } from "../stored_state.ts";
import { bytesText, count, decayText, figure, plain } from "../words.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
export const STATES_SCHEMA = "performer-states/1";

/** A state that was read or written. */
export interface StateLine {
  readonly path: string;
  /** Rows absorbed, masked ones counted. */
  readonly rows: number;
  readonly keys: number;
  readonly bytes: number;
  /** SHA-256 of rows, keys and sums. */
  readonly digest: string;
}

/** What an action found or made. */
export interface StatesReport {
  readonly schema: typeof STATES_SCHEMA;
  readonly command: "state";
  readonly action: string;
  /** Of all states: those with the same one can be merged. */
  readonly fingerprint: string;
  readonly settings: StoredSettings;
  readonly states: readonly StateLine[];
  /** Files that were read. */
  readonly inputs: readonly string[];
  /** What absorbed the keys; null where none were. */
  readonly backend: { readonly name: string; readonly device: string } | null;
  /** Of the program that wrote the state (info). */
  readonly version: string | null;
  readonly seconds: number;
}

/** States that are listed one by one. */
const LISTED = 6;

const plural = (number: number, word: string) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** The report for people. */
export function statesText({ action, states, settings, fingerprint, backend, version }: StatesReport): string {
  const lines = states.slice(0, LISTED).map(({ path, rows, keys, bytes }) => {
    return `${path} · ${plural(rows, "row")}, ${plural(keys, "key")} · ${bytesText(bytes)}`;
  });
  if (states.length > LISTED) lines.push(`… ${plural(states.length, "state")} in all, to ${states.at(-1)!.path}`);
  const { features, numFeatures, projection, norms, seed, scale, decay, kvHeads, headDim, valueDim, params } = settings;
  const width = headDim === valueDim ? `${headDim}` : `${headDim}→${valueDim}`;
  const map = [
    `${features}, m = ${numFeatures}`,
    ...(projection === null ? [] : [projection === "given" ? "projection given" : projection]),
    ...(norms === "sqrtd" ? ["norms sqrtd"] : []),
    ...(seed === null ? [] : [`seed ${seed}`]),
  ];
  lines.push(`  features     ${map.join(", ")}`);
  lines.push(
    `  attention    ${plural(kvHeads, "key head")} × ${width}${scale === null ? "" : ` · scale ${figure(scale)}`}` +
      (decay ? ` · ${decayText(decay)}` : ""),
  );
  if (params) {
    const { source, rows, centred } = params;
    const to = source === "fixed" ? "to no rows" : `to ${plural(rows, "row")} (${source})`;
    lines.push(`  fitted       ${to}${centred ? " · keys re-centred" : ""}`);
  }
  if (backend) lines.push(`  backend      ${backend.name} · ${backend.device}`);
  if (version !== null && action === "info") lines.push(`  written by   performer ${version}`);
  lines.push(`  fingerprint  ${fingerprint}`);
  return lines.map((line) => plain(line)).join("\n") + "\n";
}
