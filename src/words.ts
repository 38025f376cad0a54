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
  let best: string | null = null;
  let least = Math.max(1, Math.floor(word.length * 0.4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return best;
}

/** Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours cost 1. */
function editDistance(a: string, b: string): number {
  const rows = Array.from({ length: a.length + 1 }, (_, i) => [i, ...new Array<number>(b.length).fill(0)]);
  for (let j = 1; j <= b.length; j++) rows[0][j] = j;
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1;
      rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + change);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
      }
    }
  }
  return rows[a.length][b.length];
}
