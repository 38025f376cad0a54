/** The story of `run`: recognise the model, read the tokens, open a backend, run, report. */
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import type { OutputDType } from "../formats/decode.ts";
import { openSink, outputFormat } from "../formats/sink.ts";
import type { Assumption } from "../model/description.ts";
import { forward } from "../model/forward.ts";
import { isClassifier, outputCols } from "../model/output.ts";
import type { Warning } from "../report.ts";
import { type Kernel, leaksFuture, type RulesName } from "../rules_table.ts";
import type { TensorSink } from "../tensor.ts";
import { assumedText, bytesText, count } from "../words.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, jsonText, linesOf, silent } from "./machine.ts";
import { describedBy, numericsWords, runnable, summaryOf } from "./model_files.ts";
import { futureLeaks, readContexts, readSequences } from "./model_inputs.ts";
import { Progress } from "./progress.ts";
import type { AttentionWish } from "./run.ts";
import { measureAttention } from "./run_attention.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-run/1";

/** Runs `performer run`; returns the exit code. */
export async function runModel(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [model, tokens], flags } = invocation;
  const lines = linesOf(invocation, terminal, SCHEMA, flags.output !== "-");
  const started = performance.now();
  const candidates = parseBackendList(String(flags.backend));
  const output = flags.output as string | undefined;
  if (output !== undefined) outputFormat(output); // refuses an unknown suffix before anything is read
  await using container = await openContainer(model);
  const description = await describedBy(flags, container);
  const layout = runnable(model, description);
  const rules = (flags.compat as RulesName | undefined) ?? description.rules;
  const wish = flags.attention as AttentionWish | undefined;
  if (!wish && flags.rows !== undefined) throw new UsageError("Cannot use --rows without --attention top:K");
  if (wish && flags.encodings === true) {
    throw new UsageError("Cannot use --encodings with --attention: choose one output");
  }
  const encodings = flags.encodings === true || wish !== undefined;
  const sequences = await readSequences(tokens, flags.mask as string | undefined, layout);
  const items = sequences.list.length;
  const context = { context: flags.context as string | undefined, mask: flags["context-mask"] as string | undefined };
  const seen = await readContexts(model, layout, context, items);
  const cols = outputCols(layout, encodings);
  const perSequence = isClassifier(layout, encodings) ? 1 : sequences.list[0].length;
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
  });
  await using _backend = backend;
  const measure = wish === undefined ? null : measureAttention({
    ...{ wish, rows: flags.rows as string | undefined, backend, layout },
    ...{ items, length: sequences.list[0].length, batched: sequences.batched },
  });
  const shape = measure ? measure.shape : [
    ...(sequences.batched ? [sequences.list.length] : []),
    ...(perSequence === 1 ? [] : [perSequence]),
    cols,
  ];
  await using sink = output === undefined ? null : await openRows(
    output,
    flags["output-dtype"] as OutputDType,
    shape,
    ...(measure ? [1, shape.reduce((a, b) => a * b, 1)] as const : [items * perSequence, cols] as const),
  );
  const progress = new Progress(terminal, { enabled: !flags.quiet });
  let ledger;
  try {
    ledger = await forward({
      container,
      layout,
      rules,
      backend,
      sequences: sequences.list,
      ...seen,
      encodings,
      tileRows: flags.tile as number | undefined,
      input: tokens,
      signal: terminal.signal,
      progress: (layer, layers) => progress.update("layers", layer, layers),
      watcher: measure?.watcher,
      write: async (sequence, tile) => {
        if (!measure) await sink?.write({ ...tile, start: sequence * perSequence + tile.start });
      },
    });
  } finally {
    progress.clear();
  }
  if (sink) await measure?.write(sink);
  await sink?.finish();
  const { seconds, flops } = ledger;
  const rows = sequences.list.reduce((sum, { length }) => sum + length, 0);
  const compute = seconds.attention + seconds.feedForward + seconds.other;
  const report = {
    schema: SCHEMA,
    command: "run",
    model: { path: model, ...summaryOf(description), rules, kernel: layout.kernel },
    backend: { name: backend.name, device: backend.device, refused },
    input: { path: tokens, sequences: sequences.list.length, rows, masked: flags.mask !== undefined },
    output: output === undefined ? null : { path: output, shape, encodings },
    seconds: { ...seconds, total: (performance.now() - started) / 1000 },
    flops: { ...flops, total: flops.attention + flops.feedForward + flops.other },
    attention: measure?.summary() ?? null,
    tokensPerSecond: rows / compute,
    peakBytes: terminal.peakBytes(),
    warnings: layout.causal && leaksFuture(rules) ? [futureLeaks(rules)] : [],
  };
  terminal.found?.(report);
  lines?.end(report);
  if (lines || silent(invocation)) return 0;
  const text = formatOf(invocation) === "json" ? jsonText(report) : words(report, measure?.words() ?? []);
  if (output === "-") terminal.err(text);
  else terminal.out(text);
  return 0;
}

async function openRows(
  path: string,
  dtype: OutputDType,
  shape: readonly number[],
  rows: number,
  cols: number,
): Promise<TensorSink> {
  // Rows of all sequences follow each other: one axis of rows for the sink, the shape as asked for in the header.
  return await openSink(path, { dtype, shape, rows, heads: 1, width: cols, layout: "lhd" });
}

interface RunReport {
  readonly model: {
    path: string;
    title: string;
    versions: string | null;
    rules: RulesName;
    kernel: Kernel;
    assumed: readonly Assumption[];
  };
  readonly backend: { device: string; name: string };
  readonly input: { sequences: number; rows: number };
  readonly output: { path: string; shape: readonly number[] } | null;
  readonly seconds: Record<"load" | "attention" | "feedForward" | "other" | "total", number>;
  readonly flops: Record<"attention" | "feedForward" | "other" | "total", number>;
  readonly tokensPerSecond: number;
  readonly peakBytes: number;
  readonly warnings: readonly Warning[];
}

function words(
  { model, backend, input, output, seconds, flops, tokensPerSecond, peakBytes, warnings }: RunReport,
  more: readonly string[],
): string {
  const compute = seconds.attention + seconds.feedForward + seconds.other;
  const share = (part: "attention" | "feedForward" | "other") =>
    `${seconds[part].toFixed(2)} s, ${(flops[part] / 1e9).toFixed(2)} GFLOP`;
  const guessed = model.assumed.filter(({ from }) => from === "default");
  const lines = [
    `performer run ${model.path} · ${count(input.rows)} tokens in ${count(input.sequences)} ` +
    (input.sequences === 1 ? "sequence" : "sequences"),
    `  model        ${model.title}${model.versions ? `, performer-pytorch ${model.versions}` : ""}`,
    ...(guessed.length > 0 ? [`  assumed      ${assumedText(guessed)}`] : []),
    `  numerics     ${numericsWords(model.rules, model.kernel)}`,
    `  backend      ${backend.name} · ${backend.device}`,
    `  throughput   ${count(Math.round(tokensPerSecond))} tokens/s · ${
      (flops.total / compute / 1e9).toFixed(1)
    } GFLOP/s · load ${seconds.load.toFixed(2)} s`,
    `  attention    ${share("attention")}`,
    `  feed-forward ${share("feedForward")}`,
    `  other        ${share("other")}`,
    `  memory       ${bytesText(peakBytes)} peak`,
  ];
  lines.push(...more);
  if (output) lines.push(`  output       ${output.path} [${output.shape.join(", ")}]`);
  for (const { message, remedy } of warnings) lines.push(`warning: ${message}; ${remedy}`);
  return lines.join("\n") + "\n";
}
