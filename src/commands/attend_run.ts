/** The story of `attend`: open the inputs, open a backend, run, report. */
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { EXPORTERS } from "../exporters/mod.ts";
import { attend, sizesOf } from "../run.ts";
import { UsageError } from "../errors.ts";
import type { Invocation, Terminal } from "./command.ts";
import { attentionFrom, openInputs, openOutputFor } from "./attend_files.ts";
import { Progress, useColor } from "./progress.ts";

export async function runAttend(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const candidates = parseBackendList(String(flags.backend));
  const opened = await openInputs(invocation, terminal);
  await using _files = opened.files;
  const attention = await attentionFrom(flags);
  const redraws = Number(flags.redraws);
  if (redraws > 0 && (attention.given || attention.features === "softmax" || attention.features === "elu")) {
    throw new UsageError("Cannot use --redraws: there is no random projection to draw again");
  }
  const sizes = sizesOf(opened.inputs, attention.causal);
  const { backend, refused } = await openFirst(candidates);
  await using _backend = backend;
  await using sink = await openOutputFor(flags, opened, sizes);
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report;
  try {
    report = await attend({
      inputs: opened.inputs,
      attention,
      backend,
      refused,
      tileRows: flags.tile as number | undefined,
      check: Number(flags.check),
      redraws,
      sink,
      encoding: (flags.encode as string | undefined) ?? null,
      peakBytes: terminal.peakBytes,
      progress: (stage, done, total) => progress.update(stage, done, total),
      signal: terminal.signal,
    });
  } finally {
    progress.clear();
  }
  const toStdout = flags.output !== "-"; // the tensor has stdout to itself
  if (!flags.quiet || flags.json) {
    const exporter = await EXPORTERS[flags.json ? "json" : String(flags.format)]();
    const options = { color: useColor(terminal, flags, toStdout), verbose: flags.verbose === true };
    const text = exporter(report, options);
    if (toStdout) terminal.out(text);
    else terminal.err(text);
  }
  const limit = flags["max-error"] as number | undefined;
  if (limit === undefined) return 0;
  if (attention.features === "softmax") return 0;
  if (!report.error) throw new UsageError("Cannot use --max-error without a check: leave --check 0 out");
  if (report.error.relativeL2.value <= limit) return 0;
  terminal.err(`Error ${report.error.relativeL2.value.toPrecision(3)} exceeds --max-error ${limit}\n`);
  return 1;
}
