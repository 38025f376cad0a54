/** The story of `compare`: open the input and the backends, measure every setting on both, report. */
import { type Attention, decayFor, logitScale, withoutDecay } from "../attention.ts";
import { COMPARE_SCHEMA, type CompareReport, compareWarnings, drawsFor, type Entrant, entrantsOf } from "../compare.ts";
import { compareSettings } from "../compare_measure.ts";
import { variantName } from "../drift.ts";
import { UsageError } from "../errors.ts";
import { COMPARE_EXPORTERS } from "../exporters/compare.ts";
import { EXACT, FEATURE_MAPS } from "../feature_map.ts";
import type { RowNorms } from "../projection.ts";
import type { Refusal } from "../report.ts";
import { sizesOf } from "../run.ts";
import { checkAccepted } from "../run_near_far.ts";
import { fitWish, openInputs } from "./attend_files.ts";
import { openBackends } from "./bench_open.ts";
import type { Invocation, Terminal } from "./command.ts";
import { nearFarList } from "./near_far_flags.ts";
import { formatOf, type Lines, linesOf, silent } from "./machine.ts";
import { plotStyle } from "./plotting.ts";
import { Progress, useColor } from "./progress.ts";
import { openReportPage } from "./report_page.ts";

/** Runs `performer compare`; returns the exit code. */
export async function runCompare(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const lines = linesOf(invocation, terminal, COMPARE_SCHEMA);
  await using page = await openReportPage(invocation, terminal);
  const plot = plotStyle(invocation, terminal);
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report: CompareReport;
  try {
    report = await run(invocation, terminal, progress, lines);
  } finally {
    progress.clear();
  }
  if (page) await page.write(await (await import("../exporters/html_compare.ts")).comparePage(report, page.context));
  terminal.found?.(report);
  lines?.end(report);
  if (lines || silent(invocation)) return 0;
  const exporter = await COMPARE_EXPORTERS[formatOf(invocation)]();
  const picture = plot ? (await import("../exporters/plot_compare.ts")).plotCompare(report, plot) : "";
  terminal.out(exporter(report, { color: useColor(terminal, flags), verbose: flags.verbose === true, picture }));
  return 0;
}

async function run(
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
  lines: Lines | null,
): Promise<CompareReport> {
  const started = performance.now();
  const { flags } = invocation;
  const wanted = (flags.features as string[]).filter((name) => name !== EXACT);
  const nearFar = nearFarList(invocation, wanted);
  const features = wanted.filter((name) => FEATURE_MAPS.some((map) => map.name === name));
  if (features.length + nearFar.length === 0) {
    throw new UsageError(
      `Cannot use --features ${EXACT} alone: exact attention is what the others are compared with, name a map such as hyperbolic`,
    );
  }
  const opened = await openInputs(invocation, terminal);
  await using _files = opened.files;
  const { inputs } = opened;
  const causal = flags.causal === true;
  const sizes = sizesOf(inputs, causal);
  const { info } = inputs.q;
  if (sizes.queryRows === 0 || sizes.keyRows === 0) {
    throw new UsageError(`Cannot compare on "${info.path}": it has no rows`);
  }
  const common = {
    norms: flags.norms as RowNorms,
    seed: Number(flags.seed),
    causal,
    scale: (flags.scale as number | undefined) ?? null,
    decay: (flags.decay as Attention["decay"] | undefined) ?? null,
    given: null,
    fitting: fitWish(flags),
    compat: "exact" as const,
  };
  const axes = {
    features,
    numFeatures: flags["num-features"] as number[],
    projections: flags.projection as string[],
    nearFar,
  };
  const decay = decayFor({ ...common, features: EXACT }, sizes);
  const { entrants, leftOut } = decaying(entrantsOf(axes, sizes.headDim, common));
  await using open = new AsyncDisposableStack();
  const threads = flags.threads === undefined ? undefined : [flags.threads];
  const tileRows = flags.tile as number | undefined;
  const needsNearFar = entrants.some(({ attention }) => attention.nearFar);
  const { backends, refused } = await openBackends(
    { ...flags, threads },
    terminal,
    open,
    needsNearFar,
    (backend) => entrants.forEach(({ attention }) => checkAccepted(backend, attention, sizes, tileRows)),
  );
  refused.push(...leftOut);
  const found = await compareSettings({
    inputs,
    sizes,
    backends,
    entrants,
    check: Number(flags.check),
    draws: (flags.redraws as number | undefined) ?? drawsFor(entrants, sizes, backends.length),
    rowsTimed: Number(flags["rows-timed"]),
    tileRows,
    peakBytes: terminal.peakBytes,
    progress: (stage, done, total) => progress.update(stage, done, total),
    refuse: (refusal) => refused.push(refusal),
    measured: (row) => lines?.say("row", row),
    signal: terminal.signal,
  });
  const { queryRows: rows, ...widths } = sizes;
  return {
    schema: COMPARE_SCHEMA,
    command: "compare",
    backends: backends.map(({ label, backend: { device, threads } }) => {
      return { name: label, device, threads: threads ?? null };
    }),
    refused,
    input: {
      path: info.path,
      rows,
      ...widths,
      dtype: info.dtype,
      firstRow: info.firstRow,
      encoding: (flags.encode as string | undefined) ?? null,
    },
    attention: {
      causal,
      scale: logitScale(entrants[0].attention, sizes.headDim),
      decay: decay && [...decay],
      masked: inputs.weights !== null,
      norms: common.norms,
      seed: common.seed,
    },
    ...found,
    seconds: { ...found.seconds, total: (performance.now() - started) / 1000 },
    peakBytes: terminal.peakBytes(),
    warnings: compareWarnings(found, decay !== null),
  };
}

/** Those that can decay, where there is decay, and why the others cannot. Throws UsageError where none can. */
function decaying(all: readonly Entrant[]): { entrants: Entrant[]; leftOut: Refusal[] } {
  const leftOut: Refusal[] = [];
  const entrants = all.filter((entrant) => {
    const reason = entrant.attention.decay ? withoutDecay(entrant.attention) : null;
    if (reason) leftOut.push({ name: variantName(entrant), reason });
    return !reason;
  });
  if (entrants.length > 0) return { entrants, leftOut };
  const names = leftOut.map(({ name, reason }) => `${name}: ${reason}`).join("; ");
  throw new UsageError(`Cannot use --decay with these features alone (${names}): name a map such as hyperbolic`);
}
