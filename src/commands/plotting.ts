/** Whether a command draws, and in which characters: decided before anything is computed. */
import { UsageError } from "../errors.ts";
import type { PlotStyle } from "../plots/style.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf } from "./machine.ts";
import { useColor } from "./progress.ts";

/**
 * How to draw; null: not at all. Plots go with the text report on a terminal, or wherever `--plot` sends them.
 * @param stdout the report goes to stdout, not to stderr @param usual this report has plots unless the user says otherwise
 */
export function plotStyle(
  invocation: Invocation,
  terminal: Terminal,
  { stdout = true, usual = true }: { readonly stdout?: boolean; readonly usual?: boolean } = {},
): PlotStyle | null {
  const { flags, sources } = invocation;
  if (flags["no-plot"] || flags.plot === false) return null;
  const format = formatOf(invocation);
  if (format !== "text") {
    if (sources.plot !== "flag" || flags.plot !== true) return null;
    throw new UsageError(
      `Cannot use --plot with ${flags[format] ? `--${format}` : `--format ${format}`}: plots go with text`,
    );
  }
  const onTerminal = stdout ? terminal.stdoutTTY : terminal.stderrTTY;
  if (flags.quiet || !(flags.plot === true || (usual && onTerminal))) return null;
  const color = useColor(terminal, flags, stdout);
  return { columns: columnsOf(terminal, onTerminal), ascii: flags.ascii === true || !drawsUnicode(terminal), color };
}

/** Off the terminal, what the shell says of it. */
function columnsOf({ env, columns }: Terminal, onTerminal: boolean): number {
  const told = /^\d{1,4}$/.test(env.COLUMNS ?? "") ? Number(env.COLUMNS) : 0;
  return !onTerminal && told > 0 ? told : columns;
}

/**
 * Terminals without braille: dumb ones, the console of Linux, and those of a locale that is not UTF-8. No locale at all is none that
 * says so: containers and Windows have none, and terminals that show UTF-8.
 */
function drawsUnicode({ env }: Terminal): boolean {
  const locale = env.LC_ALL || env.LC_CTYPE || env.LANG || "UTF-8";
  return env.TERM !== "dumb" && env.TERM !== "linux" && /utf-?8/i.test(locale);
}
