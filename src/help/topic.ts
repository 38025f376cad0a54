/** What a page of `performer help TOPIC` is: data. Pages are shown on a terminal (topic_text.ts) and in the man page. */

/** A paragraph, formulas that keep their lines, or terms with their meaning. */
export type Block =
  | string
  | { readonly formula: readonly string[] }
  | { readonly terms: readonly (readonly [term: string, words: string])[] };

/** Groups in the order in which they are listed. */
export const GROUPS = ["topics", "feature maps", "far fields", "projections", "backends", "numerics"] as const;
export type Group = (typeof GROUPS)[number];

export interface Topic {
  /** One word, as it is asked for. */
  readonly name: string;
  readonly group: Group;
  /** A line for lists. */
  readonly summary: string;
  readonly body: readonly Block[];
  /** Command lines that the table takes; what follows "  # " is a comment. */
  readonly examples: readonly string[];
  /** Names of other topics and commands. */
  readonly see: readonly string[];
}
