/** The story of `attend`: run, and report. What a run is: attend_once.ts. */
import { EXPORTERS } from "../exporters/mod.ts";
import type { PlotStyle } from "../plots/style.ts";
import type { Report } from "../report.ts";
import { attendOnce } from "./attend_once.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf, silent } from "./machine.ts";
import { plotStyle } from "./plotting.ts";
import { Progress, useColor } from "./progress.ts";
import { openReportPage } from "./report_page.ts";

/** Runs `performer attend`; returns the exit code. */
export async function runAttend(invocation: Invocation, terminal: Terminal): Promise<number> {
  if (invocation.flags["dry-run"] === true) return await (await import("./attend_dry.ts")).runDry(invocation, terminal);
  await using page = await openReportPage(invocation, terminal);
  const toStdout = invocation.flags.output !== "-";
  formatOf(invocation); // refuses contradictions
  const plot = plotStyle(invocation, terminal, { stdout: toStdout, usual: invocation.flags.verbose === true });
  const progress = new Progress(terminal, { enabled: !invocation.flags.quiet });
  let report: Report;
  try {
    const keepRows = plot !== null || page !== null || terminal.found !== undefined;
    report = await attendOnce(invocation, terminal, progress, { keepRows });
  } finally {
    progress.clear();
  }
  if (page) await page.write(await (await import("../exporters/html_attend.ts")).attendPage(report, page.context));
  terminal.found?.(report);
  await print(report, invocation, terminal, plot);
  return verdict(report, invocation.flags["max-error"] as number | undefined, terminal);
}

/** The report goes to stdout, unless the tensor has it to itself. */
async function print(
  report: Report,
  invocation: Invocation,
  terminal: Terminal,
  plot: PlotStyle | null,
): Promise<void> {
  const { flags } = invocation;
  if (silent(invocation)) return;
  const toStdout = flags.output !== "-";
  const exporter = await EXPORTERS[formatOf(invocation)]();
  const picture = plot && (flags.plot === true || report.error) // asked for, it says why there is none
    ? (await import("../exporters/plot_attend.ts")).plotAttend(report, plot)
    : "";
  const color = useColor(terminal, flags, toStdout);
  const text = exporter(report, { color, verbose: flags.verbose === true, picture });
  if (toStdout) terminal.out(text);
  else terminal.err(text);
}

/** Exit code of `--max-error`; exact attention and an empty input have no error to exceed it. */
function verdict({ error }: Report, limit: number | undefined, terminal: Terminal): number {
  if (limit === undefined || !error || error.relativeL2.value <= limit) return 0;
  terminal.err(`Error ${error.relativeL2.value.toPrecision(3)} exceeds --max-error ${limit}\n`);
  return 1;
}
