/** The story of `drift`: recognise the model, read the tokens, open a backend, run exact and FAVOR attention in step, report. */
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { settingsOf } from "../bench.ts";
import { openOutput } from "../bytes.ts";
import { DRIFT_SCHEMA, type DriftReport, driftWarnings, type Variant } from "../drift.ts";
import { UsageError } from "../errors.ts";
import { OWN } from "../feature_map.ts";
import { DRIFT_EXPORTERS } from "../exporters/drift.ts";
import { openContainer } from "../formats/mod.ts";
import type { ModelLayout } from "../model/description.ts";
import { measureDrift } from "../model/drift.ts";
import type { RowRange } from "../tensor.ts";
import type { Invocation, Terminal } from "./command.ts";
import { resolveRows, speedsFile } from "./flags.ts";
import { formatOf, linesOf, silent } from "./machine.ts";
import { describedBy, runnable, summaryOf } from "./model_files.ts";
import { readSequences } from "./model_inputs.ts";
import { Progress, useColor } from "./progress.ts";

type LayerSlice = { readonly start: number | null; readonly end: number | null };

/** Runs `performer drift`; returns the exit code. */
export async function runDrift(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  const lines = linesOf(invocation, terminal, DRIFT_SCHEMA);
  const save = flags.output === undefined ? null : savedAs(String(flags.output));
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let report: DriftReport;
  try {
    report = await run(invocation, terminal, progress);
  } finally {
    progress.clear();
  }
  if (save) {
    const exporter = await DRIFT_EXPORTERS[save]();
    await using sink = openOutput(String(flags.output));
    await sink.write(new TextEncoder().encode(exporter(report, { color: false, verbose: true })), 0);
    await sink.commit();
  }
  terminal.found?.(report);
  lines?.end(report);
  if (lines || silent(invocation)) return 0;
  const exporter = await DRIFT_EXPORTERS[formatOf(invocation)]();
  terminal.out(exporter(report, { color: useColor(terminal, flags), verbose: flags.verbose === true }));
  return 0;
}

async function run(
  { arguments: [model, tokens], flags }: Invocation,
  terminal: Terminal,
  progress: Progress,
): Promise<DriftReport> {
  const started = performance.now();
  const candidates = parseBackendList(String(flags.backend));
  await using container = await openContainer(model);
  const description = await describedBy(flags, container);
  const layout = runnable(model, description);
  if (layout.layers.some(({ attention }) => attention.kind === "cross")) {
    throw new UsageError(`Cannot measure "${model}" (${description.title}): cross attention needs a second input`);
  }
  const variants = variantsOf(layout, model, flags);
  const layers = layersOf(flags.layer as LayerSlice | string, layout, model);
  const sequences = await readSequences(tokens, flags.mask as string | undefined, layout);
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
  });
  await using _backend = backend;
  const seed = Number(flags.seed);
  const found = await measureDrift({
    container,
    layout,
    rules: description.rules,
    backend,
    sequences: sequences.list,
    input: tokens,
    tileRows: flags.tile as number | undefined,
    variants,
    layers,
    seed,
    signal: terminal.signal,
    progress: (done, total) => progress.update("layers", done, total),
  });
  const { nonPositive: _, ...findings } = found;
  return {
    schema: DRIFT_SCHEMA,
    command: "drift",
    model: { path: model, ...summaryOf(description), kernel: layout.kernel },
    backend: { name: backend.name, device: backend.device, refused },
    input: {
      path: tokens,
      sequences: sequences.list.length,
      rows: sequences.list.reduce((sum, { length }) => sum + length, 0),
      masked: flags.mask !== undefined,
      causal: layout.causal,
    },
    seed,
    ...findings,
    seconds: { total: (performance.now() - started) / 1000 },
    peakBytes: terminal.peakBytes(),
    warnings: driftWarnings(found, layout.kernel === "generalized" || layout.kernel === "no-projection"),
  };
}

/** "all" is the default as it stands; throws UsageError for layers that the model has not. */
function layersOf(slice: LayerSlice | string, { layers: { length } }: ModelLayout, model: string): RowRange {
  if (typeof slice === "string") return { start: 0, end: length };
  const range = resolveRows(slice, length, `"${model}"`, { flag: "--layer", unit: "layers" });
  if (range.start < range.end) return range;
  throw new UsageError(`Cannot use --layer ${range.start}:${range.end}: it holds no layer`);
}

/** Every map with every m; throws UsageError for features the model does not have. */
function variantsOf(layout: ModelLayout, model: string, flags: Invocation["flags"]): Variant[] {
  const [{ attention }] = layout.layers;
  const brings = layout.kernel !== "exact-softmax";
  const wanted = (flags.features as string[] | undefined) ?? [...(brings ? [OWN] : []), "hyperbolic", "positive"];
  if (wanted.includes(OWN) && !brings) {
    throw new UsageError(
      `Cannot use --features ${OWN}: "${model}" is a softmax transformer and has none, expected maps such as hyperbolic`,
    );
  }
  const numFeatures = layout.kernel === "no-projection" ? attention.headDim : attention.features;
  const mapped = (features: string): Variant[] =>
    settingsOf({
      features: [features],
      numFeatures: flags["num-features"] as number[],
      projections: [String(flags.projection)],
      causal: [layout.causal],
    }, attention.headDim).map(({ features, numFeatures, projection }) => ({ features, numFeatures, projection }));
  return wanted.flatMap((features) =>
    features === OWN ? [{ features, numFeatures, projection: null }] : mapped(features)
  );
}

/** The form of a saved report, by its suffix. */
function savedAs(path: string): string {
  const suffix = /\.(json|csv|md)$/.exec(path)?.[1];
  if (!suffix) {
    throw new UsageError(`Cannot save the report as "${path}": expected a name that ends in .json, .csv or .md`);
  }
  return suffix;
}
