/** The story of `attend`: open the inputs, open a backend, run, report. */
import { type Attention, decayFor, expectedWork, isExact, isNone } from "../attention.ts";
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { TRIED_MAPS } from "../candidates.ts";
import { UsageError } from "../errors.ts";
import { EXPORTERS } from "../exporters/mod.ts";
import type { ChooseOptions } from "../choose.ts";
import { AUTO, featureMap } from "../feature_map.ts";
import type { PlotStyle } from "../plots/style.ts";
import type { Report } from "../report.ts";
import { planFit, readsAhead } from "../fit.ts";
import { attend, sizesOf } from "../run.ts";
import { checkAccepted } from "../run_near_far.ts";
import { lambdaOf } from "../trial.ts";
import { attentionFrom, openInputs, openOutputFor } from "./attend_files.ts";
import { chooseLayer, layerAttention, layerSizes, openLayer } from "./attend_layer.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, silent } from "./machine.ts";
import { plotStyle } from "./plotting.ts";
import { Progress, useColor } from "./progress.ts";
import { openReportPage } from "./report_page.ts";

export async function runAttend(invocation: Invocation, terminal: Terminal): Promise<number> {
  await using page = await openReportPage(invocation, terminal);
  const toStdout = invocation.flags.output !== "-";
  formatOf(invocation); // refuses contradictions
  const plot = plotStyle(invocation, terminal, { stdout: toStdout, usual: invocation.flags.verbose === true });
  const progress = new Progress(terminal, { enabled: !invocation.flags.quiet });
  let report: Report;
  try {
    report = await run(invocation, terminal, progress, plot !== null || page !== null || terminal.found !== undefined);
  } finally {
    progress.clear();
  }
  if (page) await page.write(await (await import("../exporters/html_attend.ts")).attendPage(report, page.context));
  terminal.found?.(report);
  await print(report, invocation, terminal, plot);
  return verdict(report, invocation.flags["max-error"] as number | undefined, terminal);
}

async function run(
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
  keepRows: boolean,
): Promise<Report> {
  const { flags } = invocation;
  const candidates = parseBackendList(String(flags.backend));
  await using chosen = await chooseLayer(invocation);
  const attention = chosen ? await layerAttention(chosen, invocation) : await attentionFrom(invocation);
  refuseContradictions(flags, attention);
  const auto = attention.features === AUTO;
  const fitted = planFit(attention, chosen !== null);
  const { shrink, nearFar } = attention;
  const ahead = readsAhead(fitted) || auto || shrink === "auto" || nearFar?.far === "clusters";
  const opened = await openInputs(invocation, terminal, ahead);
  await using _files = opened.files;
  // What does not fit is refused before a backend is open.
  const given = chosen ? null : sizesOf(opened.inputs, attention.causal);
  if (given) decayFor(attention, given);
  const planned = given ?? layerSizes(chosen!, opened.inputs.q.info.rows);
  const work = given ? expectedWork(attention, given) : undefined;
  if (given && typeof attention.shrink === "object" && attention.shrink && attention.shrink.length !== given.heads) {
    throw new UsageError(
      `Cannot use --shrink with ${attention.shrink.length} numbers: the queries have ${given.heads} head${
        given.heads === 1 ? "" : "s"
      }`,
    );
  }
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    profile: flags.profile === true,
    speeds: speedsFile(terminal.env),
    work,
    nearFar: Boolean(attention.nearFar) || auto,
    accept: (candidate) => checkAccepted(candidate, attention, planned, flags.tile as number | undefined),
    hybrid: attention.features === "hybrid",
  });
  await using _backend = backend;
  const wish = flags.tile as number | undefined;
  await using layer = chosen && await openLayer(chosen, backend, opened.inputs, wish);
  const inputs = layer?.inputs ?? opened.inputs;
  const sizes = sizesOf(inputs, attention.causal);
  const columns = chosen ? { heads: 1, valueDim: chosen.layout.out.outputs } : {};
  await using file = await openOutputFor(flags, opened, { ...sizes, ...columns });
  const { path = "", dtype = "", shape = [] } = file ?? {};
  const sink = file && layer ? Object.assign(layer.sources.sink(file), { path, dtype, shape }) : file;
  const settled = await chooseSettings({ inputs, attention, backend, signal: terminal.signal });
  const lambda = lambdaOf(settled, sizes.heads);
  return await attend({
    inputs,
    attention: settled,
    lambda,
    shrinkFitted: shrink === "auto" && lambda !== null,
    chosen: auto,
    backend,
    refused,
    tileRows: layer?.tileRows ?? wish,
    layer: layer?.options,
    check: Number(flags.check),
    redraws: Number(flags.redraws),
    health: flags.health === true,
    keepRows,
    sink,
    encoding: (flags.encode as string | undefined) ?? null,
    peakBytes: terminal.peakBytes,
    progress: (stage, done, total) => progress.update(stage, done, total),
    signal: terminal.signal,
  });
}

/** Decides what was left to choice; the code for it is loaded only then. */
async function chooseSettings(options: Omit<ChooseOptions, "maps">): Promise<Attention> {
  const { attention } = options;
  if (attention.features !== AUTO && attention.shrink !== "auto") return attention;
  const { chooseAttention } = await import("../choose.ts");
  return await chooseAttention({ ...options, maps: TRIED_MAPS });
}

/** Flags that cannot be kept together are refused before anything is computed. */
function refuseContradictions(flags: Invocation["flags"], attention: Attention): void {
  if (flags.health === true && flags.check === 0) {
    throw new UsageError("Cannot use --health without a check: leave --check 0 out");
  }
  if (flags["max-error"] !== undefined && flags.check === 0 && !isExact(attention)) {
    throw new UsageError("Cannot use --max-error without a check: leave --check 0 out");
  }
  if (attention.features === AUTO) {
    const other = ["compat", "projection-matrix", "weights"].find((name) => {
      return flags[name] !== undefined && flags[name] !== "exact";
    });
    if (other) throw new UsageError(`Cannot use --features auto with --${other}: the features are given`);
    if (Number(flags.redraws) > 0) throw new UsageError("Cannot use --redraws with --features auto: name the features");
  }
  if (isNone(attention)) return refuseBeside(flags);
  if (attention.nearFar || attention.features === AUTO) return;
  const fixed = attention.given !== null || isExact(attention) || featureMap(attention.features).projection === "none";
  if (attention.compat !== "exact") {
    if (isExact(attention)) throw new UsageError(`Cannot use --compat ${attention.compat} with exact attention`);
    if (Number(flags.redraws) > 0) throw new UsageError(`Cannot use --redraws with --compat ${attention.compat}`);
  }
  if (Number(flags.redraws) > 0 && fixed) {
    throw new UsageError("Cannot use --redraws: there is no random projection to draw again");
  }
}

/** What no attention at all cannot be asked for. */
function refuseBeside(flags: Invocation["flags"]): void {
  const asked = ["compat", "projection-matrix", "weights", "mask", "shrink", "max-error", "health"];
  const other = asked.find((name) => flags[name] !== undefined && flags[name] !== false && flags[name] !== "exact");
  if (other) throw new UsageError(`Cannot use --features none with --${other}: its output is V as it is`);
  if (Number(flags.redraws) > 0) {
    throw new UsageError("Cannot use --redraws: there is no random projection to draw again");
  }
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
