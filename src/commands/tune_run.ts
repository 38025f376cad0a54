/** The story of `tune`: open the inputs and a backend, try settings for real, say which one to use. */
import { type Attention, decayFor } from "../attention.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { TRIED_MAPS } from "../candidates.ts";
import { UsageError } from "../errors.ts";
import { TUNE_EXPORTERS } from "../exporters/tune.ts";
import { sizesOf } from "../run.ts";
import { settingFlags } from "../setting_words.ts";
import { tune, TUNE_SCHEMA, type TuneReport } from "../tune.ts";
import { shellLine } from "../words.ts";
import { attentionFrom, openInputs } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, type Lines, linesOf, silent } from "./machine.ts";
import { plotStyle } from "./plotting.ts";
import { Progress, useColor } from "./progress.ts";
import { openReportPage } from "./report_page.ts";

/** Runs `performer tune`; returns the exit code: 1 when no setting tried reaches the error. */
export async function runTune(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const lines = linesOf(invocation, terminal, TUNE_SCHEMA);
  await using page = await openReportPage(invocation, terminal);
  const plot = plotStyle(invocation, terminal);
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report: TuneReport;
  try {
    report = await run(invocation, terminal, progress, lines);
  } finally {
    progress.clear();
  }
  terminal.found?.(report);
  lines?.end(report);
  if (!lines && !silent(invocation)) {
    const exporter = await TUNE_EXPORTERS[formatOf(invocation)]();
    const picture = plot ? (await import("../exporters/plot_tune.ts")).plotTune(report, plot) : "";
    terminal.out(exporter(report, { color: useColor(terminal, flags), verbose: flags.verbose === true, picture }));
  }
  if (page) await page.write(await (await import("../exporters/html_tune.ts")).tunePage(report, page.context));
  return report.chosen === null ? 1 : 0;
}

async function run(
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
  lines: Lines | null,
): Promise<TuneReport> {
  const started = performance.now();
  const { flags } = invocation;
  if (flags.time && flags.memory) throw new UsageError("Cannot use --time together with --memory: give one of them");
  if (!(Number(flags.error) > 0)) {
    throw new UsageError("Cannot use --error 0: only exact attention has no error (--features softmax)");
  }
  const maps = (flags.features as string[] | undefined) ?? [...TRIED_MAPS];
  const candidates = parseBackendList(String(flags.backend));
  const opened = await openInputs(invocation, terminal);
  await using _files = opened.files;
  const { inputs } = opened;
  const base = await baseOf(invocation);
  const sizes = sizesOf(inputs, base.causal);
  const lambdas = decayFor(base, sizes);
  if (sizes.queryRows === 0 || sizes.keyRows === 0) {
    throw new UsageError("Cannot tune on an empty input: it has no rows");
  }
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
    nearFar: base.decay === null,
  });
  await using _backend = backend;
  const prefer = flags.memory ? "memory" : "time";
  const found = await tune({
    inputs,
    backend,
    base,
    target: Number(flags.error),
    prefer,
    sampled: Number(flags.sample),
    maps,
    numFeatures: flags["num-features"] as number[],
    signal: terminal.signal,
    progress: (done, total) => progress.update("settings", done, total),
    ran: ({ pareto: _, ...one }) => lines?.say("row", one),
  });
  return {
    schema: TUNE_SCHEMA,
    command: "tune",
    backend: { name: backend.name, device: backend.device, refused },
    input: {
      path: inputs.q.info.path,
      rows: sizes.queryRows,
      keyRows: sizes.keyRows,
      heads: sizes.heads,
      headDim: sizes.headDim,
    },
    causal: base.causal,
    decay: lambdas && [...lambdas],
    target: Number(flags.error),
    prefer,
    ...found,
    use: found.chosen && useOf(found.chosen.attention, invocation),
    seconds: { total: (performance.now() - started) / 1000 },
  };
}

/** What all candidates share. */
async function baseOf({ flags, sources }: Invocation): Promise<Attention> {
  const common = { features: "hyperbolic", projection: "orthogonal", norms: "chi", "num-features": 256 };
  return await attentionFrom({ flags: { ...flags, ...common }, sources: { ...sources, features: "default" } });
}

/** The command line that uses a setting on the same input. */
function useOf(attention: Attention, { arguments: [path], flags, sources }: Invocation): string {
  const words = ["performer", "attend", ...(path === undefined ? [] : [path])];
  for (
    const name of [
      "q",
      "k",
      "v",
      "heads",
      "kv-heads",
      "layout",
      "dtype",
      "encode",
      "mask",
      "scale",
      "decay",
      "seed",
      "backend",
    ]
  ) {
    if (flags[name] !== undefined && sources[name] !== "default") words.push(`--${name}`, String(flags[name]));
  }
  const { start, end } = (flags.rows ?? {}) as { start?: number | null; end?: number | null };
  if (flags.rows) words.push("--rows", `${start ?? ""}:${end ?? ""}`);
  if (flags.causal) words.push("--causal");
  return shellLine([...words, ...settingFlags(attention)]);
}
