/** The story of `bench`: open the backends, prepare the rows, measure their peaks and the sweep, report, compare. */
import * as os from "node:os";
import { type Attention, decayFor, withoutDecay } from "../attention.ts";
import {
  type Axes,
  BENCH_SCHEMA,
  type BenchPeak,
  type BenchReport,
  type BenchSettings,
  type BenchSizes,
  type Measurement,
  pointKey,
  type Setting,
  settingsOf,
} from "../bench.ts";
import { compareReports, parseSaved, savedKeys, type SavedReport } from "../bench_compare.ts";
import { crossoversOf, resultsOf, slopesOf } from "../bench_figures.ts";
import { measureCopy, type OpenBackend, sweep } from "../bench_measure.ts";
import { type ByteSink, openOutput, readText } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { BENCH_EXPORTERS } from "../exporters/bench.ts";
import { EXACT, TAYLOR_MAPS } from "../feature_map.ts";
import type { PlotStyle } from "../plots/style.ts";
import type { Refusal } from "../report.ts";
import { count } from "../words.ts";
import { openBackends, rowsFor } from "./bench_open.ts";
import type { Invocation, Terminal } from "./command.ts";
import { nearFarList } from "./near_far_flags.ts";
import { formatOf, type Lines, linesOf, silent } from "./machine.ts";
import { plotStyle } from "./plotting.ts";
import { Progress, useColor } from "./progress.ts";
import { openReportPage } from "./report_page.ts";

/** Seconds for measuring the peak of one backend, and for a copy. */
const PEAK_SECONDS = 1;
const COPY_SECONDS = 0.3;

export async function runBench(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const plot = plotStyle(invocation, terminal);
  const lines = linesOf(invocation, terminal, BENCH_SCHEMA);
  const saved = flags.compare === undefined
    ? null
    : parseSaved(await readText(String(flags.compare)), String(flags.compare));
  const format = flags.output === undefined ? null : savedAs(String(flags.output));
  await using sink = flags.output === undefined ? null : openOutput(String(flags.output));
  await using page = await openReportPage(invocation, terminal);
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report: BenchReport;
  try {
    report = await run(invocation, terminal, progress, saved, lines);
  } finally {
    progress.clear();
  }
  terminal.found?.(report);
  if (lines) lines.end(report);
  else if (!silent(invocation)) await print(report, invocation, terminal, plot);
  if (!report.complete) return 130; // what was saved before stays
  if (sink && format) await save(report, format, sink);
  if (page) await page.write(await (await import("../exporters/html_bench.ts")).benchPage(report, page.context));
  return verdict(report, terminal);
}

async function run(
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
  saved: SavedReport | null,
  lines: Lines | null,
): Promise<BenchReport> {
  const { flags } = invocation;
  const date = new Date().toISOString();
  const wanted = flags.features as string[];
  const axes = {
    features: wanted.filter((name) => !TAYLOR_MAPS.some((far) => far === name)),
    numFeatures: flags["num-features"] as number[],
    projections: flags.projection as string[],
    causal: modes(invocation),
    nearFar: nearFarList(invocation, wanted),
  };
  const rows = await rowsFor(invocation, terminal);
  const { settings, decay, leftOut } = decaying(settingsOf(axes, rows.sizes.headDim), invocation, rows.sizes);
  await using open = new AsyncDisposableStack();
  const { backends, refused } = await openBackends(
    flags,
    terminal,
    open,
    axes.nearFar.length > 0,
  );
  refused.push(...leftOut);
  if (saved) refuseStrangers(saved, String(flags.compare), { settings, backends, decay, ...rows });
  const tensors = await rows.load();
  const measured: Measurement[] = [];
  let last: unknown = null;
  let complete = true;
  try {
    const points = sweep({
      backends,
      settings,
      lengths: rows.lengths,
      tensors,
      decay,
      seed: Number(flags.seed),
      tileRows: flags.tile as number | undefined,
      samples: Number(flags.samples),
      seconds: Number(flags.seconds),
      peakBytes: terminal.peakBytes,
      signal: terminal.signal,
      refuse: ({ label }, { features, numFeatures, causal, L }, error) => {
        const setting = [
          features,
          ...(numFeatures === null ? [] : [`m ${numFeatures}`]),
          ...(causal ? ["causal"] : []),
        ];
        refused.push({ name: `${label} ${setting.join(" ")}, L ${L}`, reason: error.reason });
        last = error;
      },
      progress: (point, number, all, done) => {
        const { backend, features, causal, L } = point;
        const stage = `${number}/${all} ${backend} ${features}${causal ? " causal" : ""}, L ${count(L)}: rows`;
        progress.update(stage, done * L, Number(flags.samples) * L);
      },
    });
    for await (const point of points) {
      measured.push(point);
      // Peaks are measured last: what is relative to them is null until then.
      if (lines) { for (const row of resultsOf([point], [], null)) lines.say("row", { date, ...row }); }
    }
  } catch (error) {
    if (!terminal.signal.aborted || measured.length === 0) throw error;
    complete = false;
  }
  if (measured.length === 0) throw last;
  const machine = machineOf(terminal);
  const peaks = await peaksOf(backends, complete, progress);
  const copyGbps = complete ? measureCopy(COPY_SECONDS) / 1e9 : null;
  const results = resultsOf(measured, peaks, copyGbps);
  return {
    schema: BENCH_SCHEMA,
    command: "bench",
    date,
    machine,
    settings: settingsFor(invocation, axes, decay, rows),
    complete,
    refused,
    peaks,
    copyGbps,
    results,
    slopes: slopesOf(results),
    crossovers: crossoversOf(results),
    comparison: saved && complete
      ? compareReports(saved, { machine, results }, String(flags.compare), Number(flags.regression))
      : null,
  };
}

function modes({ flags, sources }: Invocation): boolean[] {
  if (flags.causal !== true) return (flags.mode as string[]).map((mode) => mode === "causal");
  if (sources.mode === "flag") throw new UsageError("Cannot use --causal with --mode: list causal in --mode");
  return [true];
}

/** The settings that can decay, where that is asked for, and why the others cannot. Throws UsageError where none can. */
function decaying(
  all: readonly Setting[],
  { flags }: Invocation,
  sizes: BenchSizes,
): { settings: Setting[]; decay: Float64Array | null; leftOut: Refusal[] } {
  const wish = (flags.decay as Attention["decay"] | undefined) ?? null;
  const causal = all.every((setting) => setting.causal);
  const decay = decayFor({ decay: wish, causal, features: EXACT, compat: "exact" }, sizes);
  const leftOut: Refusal[] = [];
  const settings = all.filter(({ features, nearFar }) => {
    const reason = decay ? withoutDecay({ features, nearFar }) : null;
    if (reason) leftOut.push({ name: features, reason });
    return !reason;
  });
  if (settings.length > 0) return { settings, decay, leftOut };
  throw new UsageError(`Cannot use --decay with --features ${leftOut[0].name}: ${leftOut[0].reason}; name another map`);
}

type Sweep = Pick<BenchSettings, "lengths"> & { sizes: { heads: number; headDim: number; valueDim: number } };

/** A saved report that shares no point is refused before anything is measured. */
function refuseStrangers(
  saved: SavedReport,
  path: string,
  { settings, backends, decay, lengths, sizes: { heads, headDim, valueDim } }: Sweep & {
    readonly decay: Float64Array | null;
    readonly settings: readonly Setting[];
    readonly backends: readonly OpenBackend[];
  },
): void {
  const keys = savedKeys(saved);
  const shared = backends.some(({ label, backend }) => {
    const threads = backend.threads ?? null;
    return settings.some((setting) => {
      return lengths.some((L) =>
        keys.has(pointKey({ backend: label, threads, ...setting, L, heads, headDim, valueDim }))
      );
    });
  });
  const text = (lambdas: ArrayLike<number> | null) => lambdas ? Array.from(lambdas).join(",") : "none";
  const before = text(saved.settings?.decay ?? null);
  if (shared && before !== text(decay)) {
    throw new UsageError(
      `Cannot compare with "${path}": its decay is ${before}, that of this sweep ${text(decay)}; give the same --decay`,
    );
  }
  if (shared) return;
  throw new UsageError(
    `Cannot compare with "${path}": it holds none of the points of this sweep; use the flags it was saved with`,
  );
}

const machineOf = ({ runtime }: Terminal): BenchReport["machine"] => ({
  processor: os.cpus()[0]?.model ?? "unknown",
  threads: os.availableParallelism(),
  memory: os.totalmem(),
  runtime,
  system: `${os.type()} ${os.release()} ${os.arch()}`,
});

function settingsFor(
  { arguments: [path], flags }: Invocation,
  axes: Required<Axes>,
  decay: Float64Array | null,
  { lengths, sizes }: Awaited<ReturnType<typeof rowsFor>>,
): BenchSettings {
  const { heads, kvHeads, headDim, valueDim } = sizes;
  return {
    input: path ?? "synthetic",
    lengths,
    ...axes,
    decay: decay && [...decay],
    heads,
    kvHeads,
    headDim,
    valueDim,
    seed: Number(flags.seed),
    spread: path === undefined ? Number(flags.spread) : null,
    samples: Number(flags.samples),
    seconds: Number(flags.seconds),
    tileRows: (flags.tile as number | undefined) ?? null,
    profile: flags.profile === true,
  };
}

/** Measured after the sweep, so that the memory they take is not the sweep's. */
async function peaksOf(backends: readonly OpenBackend[], measure: boolean, progress: Progress): Promise<BenchPeak[]> {
  const peaks: BenchPeak[] = [];
  for (const { label, backend } of backends) {
    const { device } = backend;
    progress.update(`peak of ${label}`, 0, 1);
    const peak = measure ? await backend.measurePeak?.(PEAK_SECONDS) ?? null : null;
    peaks.push({
      backend: label,
      device,
      threads: backend.threads ?? null,
      gflops: peak && peak.flopsPerSecond / 1e9,
      gbps: peak && peak.bytesPerSecond / 1e9,
    });
  }
  return peaks;
}

/** The format of `--output` by its suffix. */
function savedAs(path: string): string {
  const suffix = /\.(json|jsonl|csv|md)$/.exec(path)?.[1];
  if (!suffix) {
    throw new UsageError(`Cannot use --output ${path}: expected a name that ends in .json, .jsonl, .csv or .md`);
  }
  return suffix;
}

async function print(
  report: BenchReport,
  invocation: Invocation,
  terminal: Terminal,
  plot: PlotStyle | null,
): Promise<void> {
  terminal.found?.(report);
  const { flags } = invocation;
  const exporter = await BENCH_EXPORTERS[formatOf(invocation)]();
  const picture = plot ? (await import("../exporters/plot_bench.ts")).plotBench(report, plot) : "";
  terminal.out(exporter(report, { color: useColor(terminal, flags), verbose: flags.verbose === true, picture }));
}

async function save(report: BenchReport, format: string, sink: ByteSink): Promise<void> {
  const exporter = await BENCH_EXPORTERS[format]();
  const text = exporter(report, { color: false, verbose: false });
  await sink.write(new TextEncoder().encode(text), 0);
  await sink.commit();
}

function verdict({ comparison }: BenchReport, terminal: Terminal): number {
  if (!comparison || comparison.regressions === 0) return 0;
  const { regressions, points, path, threshold } = comparison;
  terminal.err(
    `${regressions} of ${points.length} points are slower than in "${path}" by more than ${100 * threshold} %\n`,
  );
  return 1;
}
