/** The story of `generate`: recognise the model, read the prompt, open a backend, make tokens, report. */
import { openFirst, parseBackendList } from "../backends/mod.ts";
import { spoolStdin } from "../bytes.ts";
import { InputError, UsageError } from "../errors.ts";
import { openContainer } from "../formats/mod.ts";
import { openSink, outputFormat } from "../formats/sink.ts";
import type { ModelLayout } from "../model/description.ts";
import { type Distance, distanceFrom, generate } from "../model/generation.ts";
import type { Sampling } from "../model/sampling.ts";
import type { Warning } from "../report.ts";
import { leaksFuture, type RulesName, rulesNamed, statefulRules } from "../rules_table.ts";
import { quantile } from "../statistics.ts";
import { bytesText, count } from "../words.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";
import { describedBy, runnable, summaryOf } from "./model_files.ts";
import { futureLeaks, readSequences } from "./model_inputs.ts";
import { Progress } from "./progress.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-generate/1";
/** A model over as many tokens reads and writes bytes. */
const BYTES = 256;
/** Tokens at either end whose times are compared. */
const ENDS = 100;

/** Runs `performer generate`; returns the exit code. */
export async function runGenerate(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [model], flags } = invocation;
  const format = formatOf(invocation);
  const lines = linesOf(invocation, terminal, SCHEMA, flags.output !== "-");
  const candidates = parseBackendList(String(flags.backend));
  const output = flags.output as string | undefined;
  if (output !== undefined) outputFormat(output); // refuses an unknown suffix before anything is read
  await using container = await openContainer(model);
  const description = await describedBy(flags, container);
  const layout = runnable(model, description);
  const prompts = await readPrompts(flags.prompt as string | undefined, layout);
  const sampling = samplingOf(flags, layout.embedding!.tokens);
  const recompute = flags.recompute === true;
  const rules = (flags.compat as RulesName | undefined) ??
    (recompute ? description.rules : statefulRules(description.rules));
  const { backend, refused } = await (terminal.openFirst ?? openFirst)(candidates, {
    threads: flags.threads as number | undefined,
    speeds: speedsFile(terminal.env),
  });
  await using _backend = backend;
  const tokens = Number(flags["num-tokens"]);
  const shared = { container, layout, rules, backend, signal: terminal.signal };
  if (output !== undefined) await tryOutput(output);
  const voice = format !== "text" || output === "-" || flags.quiet
    ? null
    : new Voice(terminal, layout.embedding!.tokens);
  const progress = new Progress(terminal, { enabled: !flags.quiet && voice === null });
  const made: number[][] = [];
  const seconds: number[] = [];
  let first = 0;
  try {
    for (const [sequence, prompt] of prompts.list.entries()) {
      const own: number[] = [];
      const settings = { tokens, sampling, seed: Number(flags.seed), stop: (flags.stop as number | undefined) ?? null };
      const stream = {
        ...shared,
        ...settings,
        prompt,
        sequence,
        recompute,
        warmUp: Number(flags["warm-up"]),
      };
      for await (const { token, seconds: taken } of generate(stream)) {
        if (own.length === 0) first += taken;
        else seconds.push(taken);
        own.push(token);
        voice?.say(token);
        lines?.say("token", { sequence, index: own.length - 1, token, seconds: taken });
        progress.update("tokens", sequence * tokens + own.length, prompts.list.length * tokens);
      }
      voice?.end();
      made.push(own);
    }
  } finally {
    progress.clear();
  }
  const all = prompts.list.map((prompt, i) => [...prompt, ...made[i]]);
  if (output !== undefined) await writeTokens(output, all, prompts.batched);
  const rows = Number(flags.check);
  const distance = rules === description.rules || rows === 0 ? null : {
    from: description.rules,
    ...await distanceFrom(description.rules, shared, all[0].slice(0, Math.min(rows, layout.maxLength ?? rows))),
  };
  const report = {
    schema: SCHEMA,
    command: "generate",
    model: { path: model, ...summaryOf(description), rules },
    backend: { name: backend.name, device: backend.device, refused },
    prompt: { sequences: prompts.list.length, tokens: prompts.list[0].length },
    sampling: { ...sampling, seed: Number(flags.seed), recompute },
    tokens: made,
    output: output ?? null,
    /** `prompt`: the prompts and the first token of each. */
    seconds: { prompt: first, perToken: timesOf(seconds), samples: seconds },
    tokensPerSecond: seconds.length / seconds.reduce((sum, s) => sum + s, 0),
    distance,
    peakBytes: terminal.peakBytes(),
    warnings: layout.causal && leaksFuture(rules) ? [futureLeaks(rules)] : [],
  };
  terminal.found?.(report);
  if (lines) lines.end(report);
  else if (format === "json" && output !== "-") terminal.out(jsonText(report));
  else if (format === "json") terminal.err(jsonText(report));
  else if (!flags.quiet) terminal.err(words(report));
  return 0;
}

function samplingOf(flags: Invocation["flags"], tokens: number): Sampling {
  const topP = (flags["top-p"] as number | undefined) ?? null;
  const topK = flags["top-k"] as number | undefined;
  const tenth = Math.max(1, Math.floor(tokens / 10));
  return {
    temperature: flags.greedy === true ? 0 : Number(flags.temperature),
    topK: topK === undefined ? (topP === null ? tenth : null) : topK === 0 ? null : topK,
    topP,
    repetitionPenalty: Number(flags["repetition-penalty"]),
    repetitionContext: Number(flags["repetition-context"]),
  };
}

interface Prompts {
  readonly list: readonly (readonly number[])[];
  readonly batched: boolean;
}

async function readPrompts(given: string | undefined, layout: ModelLayout): Promise<Prompts> {
  if (!layout.embedding) throw new UsageError("Cannot generate: the model takes rows, not tokens");
  if (given === undefined) {
    throw new UsageError("Missing --prompt: give text, a .npy of tokens, or - for text on stdin");
  }
  if (/\.(npy|npz|safetensors)$/i.test(given)) {
    const { list, batched } = await readSequences(given, undefined, layout);
    return { list: list.map(({ tokens }) => Array.from(tokens!)), batched };
  }
  if (layout.embedding.tokens !== BYTES) {
    throw new UsageError(
      `Cannot read text as a prompt: the model has ${layout.embedding.tokens} tokens, not the 256 bytes; ` +
        "give --prompt a .npy of token numbers",
    );
  }
  const bytes = given === "-" ? await readStdin() : new TextEncoder().encode(given);
  if (bytes.length === 0) throw new InputError("Cannot generate: the prompt is empty, expected at least one byte");
  return { list: [Array.from(bytes)], batched: false };
}

async function readStdin(): Promise<Uint8Array> {
  await using source = await spoolStdin();
  const bytes = new Uint8Array(source.byteLength);
  await source.read(bytes, 0);
  return bytes;
}

/** Prints tokens as they come: as text where they are bytes, else as numbers. */
class Voice {
  #decoder = new TextDecoder();

  constructor(readonly terminal: Terminal, readonly tokens: number) {}

  say(token: number): void {
    const text = this.tokens === BYTES ? this.#decoder.decode(Uint8Array.of(token), { stream: true }) : `${token} `;
    if (text !== "") this.terminal.out(text);
  }

  end(): void {
    this.terminal.out(this.#decoder.decode() + "\n");
    this.#decoder = new TextDecoder();
  }
}

/** Opens the output and lets go of it: a place that cannot be written is told before any token is made. */
async function tryOutput(path: string): Promise<void> {
  if (path === "-") return;
  const sink = await openSink(path, { dtype: "i32", shape: [1], rows: 1, heads: 1, width: 1, layout: "lhd" });
  await sink[Symbol.asyncDispose]();
}

/** Prompt and new tokens, `[L]` or `[b, L]`; texts that ended early are filled with their last token. */
async function writeTokens(path: string, all: readonly number[][], batched: boolean): Promise<void> {
  const cols = Math.max(...all.map((tokens) => tokens.length));
  const shape = batched ? [all.length, cols] : [cols];
  await using sink = await openSink(path, {
    dtype: "i32",
    shape,
    rows: all.length,
    heads: 1,
    width: cols,
    layout: "lhd",
  });
  for (const [start, tokens] of all.entries()) {
    const data = Float64Array.from({ length: cols }, (_, i) => tokens[Math.min(i, tokens.length - 1)]);
    await sink.write({ start, rows: 1, cols, data });
  }
  await sink.finish();
}

/** Medians over all tokens but the first, over the first and over the last hundred of them; null without any. */
function timesOf(seconds: readonly number[]): { median: number; first: number; last: number } | null {
  if (seconds.length === 0) return null;
  const median = (some: readonly number[]) => quantile([...some].sort((a, b) => a - b), 0.5);
  return { median: median(seconds), first: median(seconds.slice(0, ENDS)), last: median(seconds.slice(-ENDS)) };
}

interface GenerateReport {
  readonly model: { path: string; title: string; rules: RulesName };
  readonly backend: { name: string; device: string };
  readonly prompt: { sequences: number; tokens: number };
  readonly tokens: readonly (readonly number[])[];
  readonly output: string | null;
  readonly seconds: { prompt: number; perToken: { median: number; first: number; last: number } | null };
  readonly tokensPerSecond: number;
  readonly distance: (Distance & { readonly from: RulesName }) | null;
  readonly peakBytes: number;
  readonly warnings: readonly Warning[];
}

function words({ model, backend, prompt, tokens, output, seconds, ...rest }: GenerateReport): string {
  const total = tokens.reduce((sum, own) => sum + own.length, 0);
  const ms = (s: number) => `${(1000 * s).toPrecision(3)} ms`;
  const times = seconds.perToken;
  const lines = [
    `performer generate ${model.path} · ${count(total)} tokens after ${count(prompt.tokens)}` +
    (prompt.sequences > 1 ? ` each, ${prompt.sequences} times` : ""),
    `  model        ${model.title}`,
    `  numerics     ${model.rules}: ${rulesNamed(model.rules).summary}`,
    `  backend      ${backend.name} · ${backend.device}`,
    `  throughput   ` +
    (times
      ? `${count(Math.round(rest.tokensPerSecond))} tokens/s · ${ms(times.median)} per token, first ${ENDS} ${
        ms(times.first)
      }, last ${ENDS} ${ms(times.last)}`
      : "one token") +
    ` · prompt ${ms(seconds.prompt)}`,
    `  memory       ${bytesText(rest.peakBytes)} peak`,
  ];
  if (rest.distance) {
    const { from, relativeL2, sameToken, rows } = rest.distance;
    lines.push(
      `  distance     logits ${relativeL2.toPrecision(3)} (relative L2) from ${from}, whose rows see the future; ` +
        `likeliest token the same in ${(100 * sameToken).toFixed(1)} % of ${count(rows)} rows`,
    );
  }
  if (output) lines.push(`  output       ${output}`);
  for (const { message, remedy } of rest.warnings) lines.push(`warning: ${message}; ${remedy}`);
  return lines.join("\n") + "\n";
}
