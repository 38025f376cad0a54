/** Numbers in words, for people. */

/** 4938920.4 → "4,938,920". */
export function count(value: number): string {
  if (!Number.isFinite(value)) return "–";
  return Math.round(value).toString().replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

/** Three significant digits, without exponent where it reads well. */
export function figure(value: number): string {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "undefined" : String(value);
  const size = Math.abs(value);
  if (size >= 1000) return size < 1e6 ? count(value) : value.toExponential(2);
  return size >= 1e-3 ? String(Number(value.toPrecision(3))) : value.toExponential(1);
}

/** Seconds as "0.43 s", "61 s" or "3 min 20 s". */
export function duration(seconds: number): string {
  if (seconds < 100) return `${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** Bytes as "212 MB"; decimal units. */
export function bytesText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toPrecision(3)} ${units[unit]}`;
}

/** Text on one line and without control characters, which a terminal would obey; no longer than `most` letters. */
export function plain(text: string, most = Infinity): string {
  // deno-lint-ignore no-control-regex
  const visible = text.replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, "?");
  return visible.length > most ? `${visible.slice(0, most)}…` : visible;
}

/** Levels and members of a value that `brief` looks at. */
const [SHOWN_LEVELS, SHOWN_MEMBERS] = [4, 20];

/** A value of JSON in words, cut after `most` letters. What is nested deep or very long costs no more than what is shown; undefined is "missing". */
export function brief(value: unknown, most = 60): string {
  const text = JSON.stringify(shown(value, SHOWN_LEVELS)) ?? "missing";
  return text.length > most ? `${text.slice(0, most)}…` : text;
}

function shown(value: unknown, levels: number): unknown {
  if (typeof value === "string") return value.slice(0, 1000);
  if (typeof value !== "object" || value === null) return value;
  if (levels === 0) return "…";
  if (Array.isArray(value)) return value.slice(0, SHOWN_MEMBERS).map((part) => shown(part, levels - 1));
  const parts = Object.entries(value).slice(0, SHOWN_MEMBERS);
  return Object.fromEntries(parts.map(([key, part]) => [key.slice(0, 1000), shown(part, levels - 1)]));
}

/** Words as a shell takes them. */
export const shellLine = (words: readonly string[]): string => {
  return words.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
};

/** Names with their values: "depth 2, shape [1,64]". */
export function factsText(facts: Iterable<readonly [string, unknown]>): string {
  return [...facts].map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

/** Values that a model's tensors do not tell, and where each came from. */
export function assumedText(
  assumed: readonly { readonly argument: string; readonly value: unknown; readonly from: "config" | "default" }[],
): string {
  const said = assumed.map(({ argument, value, from }) => {
    return [argument, from === "config" ? value : `${JSON.stringify(value)} (not in the tensors)`] as const;
  });
  return `${factsText(said)}; --config says otherwise`;
}

/** The candidate nearest to `word` by edit distance, when it is near enough to be a slip; null otherwise. */
export function nearest(word: string, candidates: readonly string[]): string | null {
  const wanted = word.toLowerCase();
  let best: string | null = null;
  let least = Math.max(1, Math.floor(word.length * 0.4)) + 1;
  for (const candidate of candidates) {
    // The distance is at least the difference in length: a file may hold very many names, and very long ones.
    if (Math.abs(candidate.length - word.length) >= least) continue;
    const distance = editDistance(wanted, candidate.toLowerCase(), least);
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours cost 1. Some number ≥ `enough` where it is that. */
function editDistance(a: string, b: string, enough: number): number {
  let [before, last, next] = [0, 1, 2].map(() => new Uint32Array(b.length + 1));
  for (let j = 1; j <= b.length; j++) last[j] = j;
  let lowest = 0;
  for (let i = 1; i <= a.length; i++) {
    const lowestBefore = lowest;
    lowest = next[0] = i;
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      let steps = Math.min(last[j] + 1, next[j - 1] + 1, last[j - 1] + change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) steps = Math.min(steps, before[j - 2] + 1);
      next[j] = steps;
      lowest = Math.min(lowest, steps);
    }
    // Rows only build on the two before them.
    if (lowest >= enough && lowestBefore >= enough) return enough;
    [before, last, next] = [last, next, before];
  }
  return last[b.length];
}

/** λ of decay per key head: "decay 0.25", "decay 0.00391 to 0.25". */
export function decayText(lambdas: readonly number[]): string {
  const [least, most] = [Math.min(...lambdas), Math.max(...lambdas)];
  return `decay ${least === most ? figure(most) : `${figure(least)} to ${figure(most)}`}`;
}
