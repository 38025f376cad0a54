/** The story of `attend --batch`: read the list, open a backend, attend to one input after the other, add up. */
import { dirname } from "node:path";
import {
  BATCH_SCHEMA,
  type BatchFailure,
  type BatchRecord,
  type BatchSummary,
  BatchTally,
  recordOf,
  recordWithout,
} from "../batch.ts";
import { WarmBackends } from "../backends/warm.ts";
import { makeOutputFolder } from "../bytes.ts";
import { PerformerError, UsageError } from "../errors.ts";
import { batchLine, batchText } from "../exporters/batch.ts";
import { VERSION } from "../version.ts";
import { count, plain } from "../words.ts";
import { askedAttention, openBackend } from "./attend_open.ts";
import { attendOnce } from "./attend_once.ts";
import { type BatchItem, readBatchList } from "./batch_list.ts";
import { BatchNotes } from "./batch_notes.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf, jsonText, linesOf, silent } from "./machine.ts";
import { Progress, useColor } from "./progress.ts";
import { continued } from "./state_flags.ts";

/** Runs `performer attend --batch LIST`; returns the exit code (`BatchTally.exitCode`). */
export async function runBatch(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { flags } = invocation;
  refuseFlags(invocation);
  const format = formatOf(invocation);
  const lines = linesOf(invocation, terminal, BATCH_SCHEMA);
  const list = String(flags.batch);
  const folder = flags.output === undefined ? null : String(flags.output);
  const items = await readBatchList(list, folder);
  await using warm = new WarmBackends();
  // What each input's run is told of the world: a backend that stays open, and nothing that costs more than the run.
  const world: Terminal = Object.create(terminal, {
    openFirst: { value: terminal.openFirst ?? warm.open },
    peakBytes: { value: () => 0 },
  });
  const backend = await tryFlags(invocation, world);
  const notes = folder === null ? null : await openFolder(folder, items, invocation);

  const began = performance.now();
  const tally = new BatchTally();
  const progress = new Progress(terminal, { enabled: !flags.quiet, unit: "inputs" });
  const say = format === "text" && !flags.quiet;
  try {
    for (const item of items) {
      const record = notes?.has(item)
        ? recordWithout(item, { status: "skipped", output: item.output })
        : await attendTo(item, invocation, world);
      if (record === null) break;
      tally.add(record);
      if (lines) lines.say("input", record);
      else if (record.failed || say) {
        progress.clear();
        if (record.failed) terminal.err(`performer: line ${count(item.line)}, ${failedWords(record.failed, item)}\n`);
        else terminal.out(batchLine(record));
      }
      progress.update("attending", tally.count, items.length);
    }
  } finally {
    progress.clear();
  }
  const summary = tally.summary({
    list: list === "-" ? "standard input" : list,
    output: folder,
    backend,
    inputs: items.length,
    interrupted: terminal.signal.aborted,
    seconds: (performance.now() - began) / 1000,
    peakBytes: terminal.peakBytes(),
  });
  terminal.found?.(summary);
  if (lines && summary.failed > 0) tellFailures(summary, terminal);
  if (lines) lines.end(summary);
  else if (format === "json") terminal.out(jsonText(summary));
  else if (!silent(invocation)) terminal.out(batchText(summary, useColor(terminal, flags)));
  return summary.exitCode;
}

/** Flags that are about a single run, and why. */
const SINGLE: Readonly<Record<string, string>> = {
  q: "a list names one file for queries, keys and values",
  k: "a list names one file for queries, keys and values",
  v: "a list names one file for queries, keys and values",
  "state-out": "every input would write the same state; performer state build makes states",
  report: "a page shows one run",
  health: "it is a report per head of one input; attend to that input alone",
  profile: "times of stages are those of one run",
  plot: "a plot shows one run",
  "dry-run": "it predicts one run; performer explain does for an input of the list",
  "checkpoint-seconds": "inputs are done whole or anew",
};

function refuseFlags({ arguments: [input], flags, sources }: Invocation): void {
  const cannot = (what: string, why: string) => new UsageError(`Cannot use --batch with ${what}: ${why}`);
  if (input !== undefined) throw cannot(`"${input}"`, "the list names the inputs, leave the one or the other out");
  for (const [name, why] of Object.entries(SINGLE)) {
    if (sources[name] === "flag" && flags[name] !== false) throw cannot(`--${name}`, why);
  }
  if (flags["max-memory"] !== undefined) { // a ceiling is kept or refused, wherever it was set
    throw cannot("--max-memory", "memory that runs have left lies about until it is collected, and is not counted");
  }
  const format = formatOf({ flags, sources });
  if (format === "csv" || format === "md") throw cannot(`--format ${format}`, "expected text, json or jsonl");
  if (flags.output === "-") throw cannot("--output -", "there is an output for each input, name a folder");
  if (flags.resume === true && flags.output === undefined) {
    throw cannot("--resume", "without --output FOLDER nothing is kept that could be gone on with");
  }
}

/** Refuses what no input could be attended to with, and opens the backend that most will be. */
async function tryFlags(invocation: Invocation, terminal: Terminal): Promise<BatchSummary["backend"]> {
  const { invocation: asked, before } = await continued(invocation);
  await using open = new AsyncDisposableStack();
  const { attention } = await askedAttention(asked, open, before);
  const { backend, refused } = await openBackend(asked, terminal, attention, { work: 0 });
  return { name: backend.name, device: backend.device, refused };
}

/** Makes the folder of the outputs, and those in it that the list names. */
async function openFolder(folder: string, items: readonly BatchItem[], invocation: Invocation): Promise<BatchNotes> {
  for (const path of new Set([folder, ...items.map(({ output }) => dirname(output!))])) await makeOutputFolder(path);
  return await BatchNotes.open(folder, invocation);
}

/** Attends to one input; null when the batch was interrupted before its end. What goes wrong with it is its own. */
async function attendTo(item: BatchItem, invocation: Invocation, terminal: Terminal): Promise<BatchRecord | null> {
  if (terminal.signal.aborted) return null;
  const { flags } = invocation;
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const own = { output: item.output ?? undefined, batch: undefined, resume: false, "dry-run": false };
  try {
    const report = await attendOnce(
      { ...invocation, arguments: [item.input], flags: { ...flags, ...own } },
      terminal,
      new Progress(terminal, { enabled: false }),
      { keepRows: false },
    );
    return recordOf(item, report, { seconds: seconds(), maxError: flags["max-error"] as number | undefined });
  } catch (error) {
    if (terminal.signal.aborted) return null;
    await new Promise((resolve) => setImmediate(resolve)); // a signal is heard between inputs that all fail at once
    return recordWithout(item, { status: "failed", seconds: seconds(), failed: failureOf(error) });
  }
}

function failureOf(error: unknown): BatchFailure {
  if (error instanceof PerformerError) return { message: error.message, exitCode: error.exitCode };
  const words = error instanceof Error ? error.stack ?? error.message : String(error);
  return { message: `this is a bug in performer ${VERSION}, please report it: ${words}`, exitCode: 70 };
}

const failedWords = ({ message }: BatchFailure, { input }: Pick<BatchItem, "input">): string =>
  plain(`"${input}": ${message}`, 2000);

/** Lines of JSON are read later; whoever waits for the end hears of it on standard error. */
function tellFailures({ failed, inputs, failures: [first] }: BatchSummary, terminal: Terminal): void {
  terminal.err(
    `performer: ${count(failed)} of ${count(inputs)} inputs failed, the first on line ${count(first.line)}, ${
      failedWords(first, first)
    }\n`,
  );
}
