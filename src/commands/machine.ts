/** Output for machines: which form a report has, and lines of JSON that come as soon as each is known (docs/json.md). */
import { UsageError } from "../errors.ts";
import type { Invocation, Terminal } from "./command.ts";

/** Forms of a report; not every command has the last two. */
export type Format = "text" | "json" | "jsonl" | "csv" | "md";

/** What of an invocation decides the form. */
type Asked = Pick<Invocation, "flags" | "sources">;

/**
 * The form asked for by `--json`, `--jsonl` or `--format`, of which the first two win over a configured `--format`. Throws UsageError where
 * the command line asks for two.
 */
export function formatOf({ flags, sources }: Asked): Format {
  const format = (flags.format ?? "text") as Format;
  const asked = (["json", "jsonl"] as const).filter((name) => flags[name] === true);
  if (asked.length === 0) return format;
  const given = sources.format === "flag" ? format : asked[0];
  const other = [...asked, given].find((name) => name !== asked[0]);
  if (other) {
    throw new UsageError(
      `Cannot use --${asked[0]} with ${other === "jsonl" && given === asked[0] ? "--jsonl" : `--format ${other}`}: ` +
        "a report has one form, give one of them",
    );
  }
  return asked[0];
}

/** Whether `--quiet` leaves the report out: it is for people. What a machine asked for is printed all the same. */
export const silent = (invocation: Asked): boolean =>
  invocation.flags.quiet === true && formatOf(invocation) === "text";

/** Numbers that JSON lacks (NaN, ±Infinity) become null. */
export const jsonText = (report: object): string => JSON.stringify(report, null, 2) + "\n";

/** Writes lines of JSON, each a whole object with `schema` and `type`. */
export class Lines {
  constructor(readonly schema: string, readonly write: (text: string) => void) {}

  say(type: string, values: object): void {
    this.write(JSON.stringify({ schema: this.schema, type, ...values }) + "\n");
  }

  /** The last line: what `--json` prints, as one line. */
  end(report: object): void {
    this.say("summary", report);
  }
}

/** The lines of `--jsonl`; null where another form was asked for. `stdout`: they have it to themselves. */
export function linesOf(invocation: Asked, terminal: Terminal, schema: string, stdout = true): Lines | null {
  if (formatOf(invocation) !== "jsonl") return null;
  return new Lines(schema, stdout ? terminal.out : terminal.err);
}
