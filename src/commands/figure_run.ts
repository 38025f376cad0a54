/** The story of `figure`: compute or measure, then write the files and say what the figure shows. */
import type { Attention } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { settingsOf } from "../bench.ts";
import { parseSaved } from "../bench_compare.ts";
import { syntheticTensors } from "../bench_tensors.ts";
import { readText } from "../bytes.ts";
import { requireDrawing } from "../charts/draw.ts";
import { entrantsOf } from "../compare.ts";
import { UsageError } from "../errors.ts";
import { csvText } from "../exporters/csv.ts";
import { EXACT, TAYLOR_MAPS } from "../feature_map.ts";
import { type Figure, FIGURE_SCHEMA, type FigureReport, flatTable } from "../figures/figure.ts";
import { sizesOf } from "../run.ts";
import { nearest, plain } from "../words.ts";
import { openInputs } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";
import { FIGURES } from "./figure.ts";
import { targetsOf, writeFigure } from "./figure_files.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";
import { Progress, useColor } from "./progress.ts";

/** Runs `performer figure`; returns the exit code. */
export async function runFigure(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [name], flags } = invocation;
  const format = formatOf(invocation);
  const lines = linesOf(invocation, terminal, FIGURE_SCHEMA);
  refuseName(name);
  refuseInput(invocation);
  const targets = targetsOf(invocation, name);
  // Minutes of measuring would be lost where the drawing is not installed.
  if (targets.some(({ kind }) => kind === "svg" || kind === "png")) {
    await requireDrawing(targets.some(({ kind }) => kind === "png"));
  }
  const started = performance.now();
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let made: Made;
  try {
    made = await make(name, invocation, terminal, progress);
  } finally {
    progress.clear();
  }
  const { figure, backend } = made;
  const { chart, ...rest } = figure;
  const report: FigureReport = {
    schema: FIGURE_SCHEMA,
    command: "figure",
    backend: backend && { name: backend.name, device: backend.device },
    ...rest,
    caption: chart.caption,
    seconds: (performance.now() - started) / 1000,
  };
  await writeFigure(figure, report, targets, flags.width as number | undefined);
  terminal.found?.(report);
  if (lines) lines.end(report);
  else if (format === "json") terminal.out(jsonText(report));
  else if (format === "csv") terminal.out(csvText(flatTable(report.data)));
  else if (!flags.quiet) terminal.out(text(report, targets.map(({ path }) => path), useColor(terminal, flags)));
  return 0;
}

function refuseName(name: string): void {
  const names = Object.keys(FIGURES);
  if (names.includes(name)) return;
  const near = nearest(name.replace(/^fig(ure)?[-_. ]?/i, ""), names);
  throw new UsageError(
    `Unknown figure "${name}": ${near ? `did you mean ${near}? ` : ""}expected one of ${names.join(", ")}`,
  );
}

/** Which figures take files, and which need them. */
function refuseInput({ arguments: [name, path], flags }: Invocation): void {
  const given = path !== undefined || flags.q !== undefined;
  if (name === "heads" && !given) {
    throw new UsageError("Missing INPUT: figure heads shows the heads of a file, as attend reads it");
  }
  if (given && (name === "2" || name === "4" || name === "theorem")) {
    throw new UsageError(
      `Cannot use "${path ?? flags.q}" with figure ${name}: it is made from formulas and seeded data; leave INPUT out`,
    );
  }
  if (name === "heatmap" && Number(flags.size) > 128) {
    throw new UsageError(
      `Cannot use --size ${flags.size}: expected at most 128, since ${Number(flags.size) ** 2} cells are no picture`,
    );
  }
}

interface Made {
  readonly figure: Figure;
  readonly backend: Pick<Backend, "name" | "device"> | null;
}

async function make(name: string, invocation: Invocation, terminal: Terminal, progress: Progress): Promise<Made> {
  const { arguments: [, path], flags } = invocation;
  const { signal } = terminal;
  const seed = Number(flags.seed);
  const trials = flags.trials as number | undefined;
  const step = (done: number, total: number) => progress.update("points", done, total);
  if (name === "2") {
    const { ratioFigure } = await import("../figures/ratio.ts");
    return { figure: ratioFigure(), backend: null };
  }
  if (name === "theorem") {
    const { theoremFigure } = await import("../figures/theorem.ts");
    if (trials === 1) {
      throw new UsageError(
        "Cannot use --trials 1 with figure theorem: a mean without a spread shows nothing; use at least 2",
      );
    }
    return { figure: await theoremFigure({ trials: trials ?? 10_000, seed, signal, progress: step }), backend: null };
  }
  if (name === "3" && path !== undefined) {
    const { timeFigure } = await import("../figures/time.ts");
    const { results, date, machine } = parseSaved(await readText(path), path);
    const { processor, runtime } = machine;
    return { figure: timeFigure(results, { path, date, processor, runtime }), backend: null };
  }
  const { backend } = await (terminal.openFirst ?? openFirst)(parseBackendList(String(flags.backend)), {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
    work: name === "3" ? undefined : 0,
    nearFar: true,
  });
  await using _backend = backend;
  const figure = name === "3"
    ? await measuredTimes(invocation, terminal, backend, step)
    : name === "4"
    ? await outputErrors(invocation, terminal, backend, step)
    : name === "heads"
    ? await headErrors(invocation, terminal, backend, progress)
    : await heatmap(invocation, terminal, backend);
  return { figure, backend: { name: backend.name, device: backend.device } };
}

type Step = (done: number, total: number) => void;

/** The one feature map of a figure that shows one. */
function oneMap({ features, "num-features": counts }: Invocation["flags"], figure: string, otherwise: string) {
  const maps = (features as string[] | undefined) ?? [otherwise];
  const numbers = (counts as number[] | undefined) ?? [256];
  if (maps.length > 1 || numbers.length > 1) {
    throw new UsageError(`Cannot use lists with figure ${figure}: expected one of --features and one of -m`);
  }
  return { features: maps[0], numFeatures: numbers[0] };
}

async function measuredTimes(
  { flags }: Invocation,
  { peakBytes, signal, runtime }: Terminal,
  backend: Backend,
  progress: Step,
): Promise<Figure> {
  const { measureTimes, timeFigure } = await import("../figures/time.ts");
  const lengths = ((flags.lengths as number[] | undefined) ?? Array.from({ length: 12 }, (_, i) => 2 ** (6 + i)))
    .toSorted((a, b) => a - b);
  const { features, numFeatures } = oneMap(flags, "3", "positive");
  const heads = Number(flags.heads ?? 1), headDim = Number(flags["head-dim"] ?? 64), seed = Number(flags.seed);
  const axes = {
    features: [features],
    numFeatures: [numFeatures],
    projections: [String(flags.projection)],
    causal: [flags.causal === true],
  };
  if (features === EXACT) {
    throw new UsageError(`Cannot use --features ${EXACT} with figure 3: exact attention is always there`);
  }
  const [setting] = settingsOf(axes, headDim);
  const sizes = { heads, kvHeads: heads, headDim, valueDim: headDim };
  const results = await measureTimes({
    open: { label: backend.name, backend },
    lengths,
    setting,
    tensors: syntheticTensors(sizes, lengths.at(-1)!, seed, 0.5),
    seed,
    samples: 7,
    seconds: 1,
    budget: Number(flags.budget),
    peakBytes,
    progress,
    signal,
  });
  return timeFigure(results, { seed, threads: backend.threads ?? null, runtime, date: new Date().toISOString() });
}

async function outputErrors(
  { flags }: Invocation,
  { signal }: Terminal,
  backend: Backend,
  progress: Step,
): Promise<Figure> {
  const { outputErrorFigure } = await import("../figures/output_error.ts");
  const lengths = (flags.lengths as number[] | undefined) ?? [4096];
  if (lengths.length > 1) throw new UsageError("Cannot use several --lengths with figure 4: expected one");
  return await outputErrorFigure({
    backend,
    trials: Number(flags.trials ?? 15),
    seed: Number(flags.seed),
    length: lengths[0],
    numFeatures: ((flags["num-features"] as number[] | undefined) ?? [16, 64, 128, 256]).toSorted((a, b) => a - b),
    progress,
    signal,
  });
}

/** What all settings of a file share. */
const commonOf = ({ flags }: Invocation): Omit<Attention, "features" | "numFeatures" | "projection"> => ({
  norms: "chi",
  seed: Number(flags.seed),
  causal: flags.causal === true,
  scale: (flags.scale as number | undefined) ?? null,
  given: null,
  compat: "exact",
});

/** INPUT as `attend` takes it: NAME is in front of it here. */
const inputOf = (invocation: Invocation): Invocation => ({ ...invocation, arguments: invocation.arguments.slice(1) });

async function headErrors(
  invocation: Invocation,
  terminal: Terminal,
  backend: Backend,
  progress: Progress,
): Promise<Figure> {
  const { headsFigure } = await import("../figures/heads.ts");
  const { flags } = invocation;
  const common = commonOf(invocation);
  const opened = await openInputs(inputOf(invocation), terminal);
  await using _files = opened.files;
  const sizes = sizesOf(opened.inputs, common.causal);
  if (sizes.queryRows === 0 || sizes.keyRows === 0) {
    throw new UsageError("Cannot draw the heads of an empty input: it has no rows");
  }
  const names = ((flags.features as string[] | undefined) ?? ["hyperbolic", "positive", "trigonometric", "taylor1"])
    .filter((name) => name !== EXACT);
  const far = TAYLOR_MAPS.filter((name) => names.includes(name));
  const axes = {
    features: names.filter((name) => !far.some((one) => one === name)),
    numFeatures: (flags["num-features"] as number[] | undefined) ?? [64, 256],
    projections: [String(flags.projection)],
    nearFar: far.map((far) => ({ window: 0, heavy: 0, far, clusters: 0, top: 0 })),
  };
  const entrants = entrantsOf(axes, sizes.headDim, common);
  if (entrants.length === 0) {
    throw new UsageError("Cannot draw the heads without a setting: name --features other than softmax");
  }
  return await headsFigure({
    open: { label: backend.name, backend },
    inputs: opened.inputs,
    sizes,
    entrants,
    check: Number(flags.check),
    draws: Number(flags.trials ?? 3),
    seed: common.seed,
    causal: common.causal,
    progress: (stage, done, total) => progress.update(stage, done, total),
    signal: terminal.signal,
  });
}

async function heatmap(invocation: Invocation, terminal: Terminal, backend: Backend): Promise<Figure> {
  const { heatmapFigure, seededSlice, sliceOfFile } = await import("../figures/heatmap.ts");
  const { arguments: [, path], flags } = invocation;
  const { features, numFeatures } = oneMap(flags, "heatmap", "hyperbolic");
  const far = TAYLOR_MAPS.find((name) => name === features);
  const attention: Attention = {
    ...commonOf(invocation),
    features,
    numFeatures,
    projection: String(flags.projection),
    nearFar: far ? { window: 0, heavy: 0, far, clusters: 0, top: 0 } : null,
  };
  const size = Number(flags.size);
  if (path === undefined && flags.q === undefined) {
    const headDim = Number(flags["head-dim"] ?? 16);
    const slice = seededSlice({ rows: size, headDim, seed: attention.seed, scale: 1 });
    return await heatmapFigure({ backend, slice, attention });
  }
  const opened = await openInputs(inputOf(invocation), terminal);
  await using _files = opened.files;
  const { queryRows, keyRows, heads } = sizesOf(opened.inputs, attention.causal);
  const head = Number(flags.head);
  if (head >= heads) {
    throw new UsageError(
      `Cannot use --head ${head}: the queries have ${heads} head${heads === 1 ? "" : "s"}, counted from 0`,
    );
  }
  const rows = Math.min(size, queryRows, keyRows);
  if (rows < 2) {
    throw new UsageError(`Cannot draw the weights of ${rows} row${rows === 1 ? "" : "s"}: expected at least 2`);
  }
  return await heatmapFigure({ backend, slice: await sliceOfFile(opened.inputs, { start: 0, rows, head }), attention });
}

function text(
  { name, title, settings, findings, backend, seconds }: FigureReport,
  paths: readonly string[],
  color: boolean,
): string {
  const dim = (words: string) => color ? `\x1b[2m${words}\x1b[22m` : words;
  const line = (name: string, words: string) => `  ${dim(name.padEnd(12))} ${plain(words)}\n`;
  const known = Object.entries(settings).map(([name, value]) =>
    `${name} ${Array.isArray(value) ? value.join("/") : value}`
  );
  return `performer figure ${name} · ${plain(title)}\n` +
    (backend ? line("backend", `${backend.name} · ${backend.device}`) : "") +
    line("settings", known.join(", ")) +
    findings.map((words, i) => line(i === 0 ? "found" : "", words)).join("") +
    paths.map((path, i) => line(i === 0 ? "written" : "", path)).join("") +
    line("time", `${seconds.toFixed(1)} s`);
}
