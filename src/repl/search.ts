/** Ctrl-R: a search backwards through the history. Pure: keys in, a state out. */

/** Where a search stands. */
export interface Search {
  readonly query: string;
  /** The entry that is shown, by its place in the history; −1: none. */
  readonly at: number;
  /** Nothing older fits. */
  readonly failed: boolean;
}

/** What a key does to a search. */
export type SearchStep =
  | { readonly kind: "goes on"; readonly search: Search }
  /** The entry is the line now; `then` is a key that the line is given: Enter, or one that edits. */
  | { readonly kind: "taken"; readonly entry: string | null; readonly then: string | null }
  /** The line is what it was. */
  | { readonly kind: "given up" };

export const NEW_SEARCH: Search = { query: "", at: -1, failed: false };

/** One key. `history`: oldest first. */
export function searchStep(search: Search, key: string, history: readonly string[]): SearchStep {
  const { query, at } = search;
  switch (key) {
    case "\x12": // Ctrl-R: the one before
      return { kind: "goes on", search: find(query, at < 0 ? history.length - 1 : at - 1, search, history) };
    case "\x07": // Ctrl-G
    case "\x03": // Ctrl-C
      return { kind: "given up" };
    case "\x7f":
    case "\b": {
      const shorter = [...query].slice(0, -1).join("");
      return {
        kind: "goes on",
        search: shorter === "" ? NEW_SEARCH : find(shorter, history.length - 1, NEW_SEARCH, history),
      };
    }
    case "\r":
    case "\n":
      return { kind: "taken", entry: history[at] ?? null, then: "\r" };
    case "\x1b":
      return { kind: "taken", entry: history[at] ?? null, then: null };
  }
  // Other control keys and arrows edit the line that was found.
  // deno-lint-ignore no-control-regex
  if (/^[\x00-\x1f]/.test(key)) return { kind: "taken", entry: history[at] ?? null, then: key };
  const longer = query + key;
  return { kind: "goes on", search: find(longer, at < 0 ? history.length - 1 : at, search, history) };
}

/** The newest entry from `from` backwards that holds the query, other than the one shown now. */
function find(query: string, from: number, { at, query: before }: Search, history: readonly string[]): Search {
  if (query === "") return { query, at: -1, failed: false };
  for (let i = from; i >= 0; i--) {
    const same = query === before && at >= 0 && history[i] === history[at];
    if (history[i].includes(query) && !same) return { query, at: i, failed: false };
  }
  return { query, at, failed: true };
}

/** The line that is shown while a search goes on. */
export function searchLine({ query, at, failed }: Search, history: readonly string[], columns: number): string {
  const entry = (history[at] ?? "").replace(/\n\s*/g, " ↵ ");
  const line = `${failed ? "failed " : ""}search back: ${query} │ ${entry}`;
  const most = Math.max(20, columns - 1);
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}
