/** The story of `compare`: open the input and the backends, measure every setting on both, report. */
import { logitScale, type NearFarSettings } from "../attention.ts";
import { COMPARE_SCHEMA, type CompareReport, compareWarnings, drawsFor, entrantsOf } from "../compare.ts";
import { compareSettings } from "../compare_measure.ts";
import { UsageError } from "../errors.ts";
import { COMPARE_EXPORTERS } from "../exporters/compare.ts";
import { EXACT, FEATURE_MAPS, TAYLOR_MAPS } from "../feature_map.ts";
import type { RowNorms } from "../projection.ts";
import { sizesOf } from "../run.ts";
import { checkAccepted } from "../run_near_far.ts";
import { fitWish, openInputs } from "./attend_files.ts";
import { openBackends } from "./bench_open.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { nearFarFrom } from "./near_far_flags.ts";
import { Progress, useColor } from "./progress.ts";

/** Runs `performer compare`; returns the exit code. */
export async function runCompare(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report: CompareReport;
  try {
    report = await run(invocation, terminal, progress);
  } finally {
    progress.clear();
  }
  if (flags.quiet && !flags.json) return 0;
  const exporter = await COMPARE_EXPORTERS[flags.json ? "json" : String(flags.format)]();
  terminal.out(exporter(report, { color: useColor(terminal, flags), verbose: flags.verbose === true }));
  return 0;
}

async function run(invocation: Invocation, terminal: Terminal, progress: Progress): Promise<CompareReport> {
  const started = performance.now();
  const { flags } = invocation;
  const wanted = (flags.features as string[]).filter((name) => name !== EXACT);
  const nearFar = nearFarOf(invocation, wanted);
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
  const entrants = entrantsOf(axes, sizes.headDim, common);
  await using open = new AsyncDisposableStack();
  const threads = flags.threads === undefined ? undefined : [flags.threads];
  const tileRows = flags.tile as number | undefined;
  const needsNearFar = nearFar.length > 0;
  const { backends, refused } = await openBackends(
    { ...flags, threads },
    speedsFile(terminal.env),
    open,
    needsNearFar,
    (backend) => entrants.forEach(({ attention }) => checkAccepted(backend, attention, sizes, tileRows)),
  );
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
      masked: inputs.weights !== null,
      norms: common.norms,
      seed: common.seed,
    },
    ...found,
    seconds: { ...found.seconds, total: (performance.now() - started) / 1000 },
    peakBytes: terminal.peakBytes(),
    warnings: compareWarnings(found),
  };
}

/** Far fields alone that --features names, and the near keys and far field of --window, --heavy, --far and --top. */
function nearFarOf({ flags, sources }: Invocation, names: readonly string[]): NearFarSettings[] {
  const alone = TAYLOR_MAPS.filter((name) => names.includes(name)).map((far) => {
    return { window: 0, heavy: 0, far, clusters: 0, top: 0 };
  });
  // Redraws are those of the feature maps beside it.
  const own = { flags: { ...flags, features: "", redraws: 0 }, sources: { ...sources, features: "default" as const } };
  const near = nearFarFrom(own);
  return near ? [...alone, near] : alone;
}
