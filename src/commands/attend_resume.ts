/** `attend --resume`: from flags to the journal of an output, what it belongs to, and the sink that goes on where it ends. */
import { createHash } from "node:crypto";
import * as os from "node:os";
import type { Attention, Sizes } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { parseBackendList } from "../backends/mod.ts";
import { changeTime, openFile } from "../bytes.ts";
import { disk, temporaries } from "../disk.ts";
import { UsageError } from "../errors.ts";
import { openSink, outputFormat } from "../formats/sink.ts";
import { partialNames } from "../partial_output.ts";
import { type Found, type JournalInput, RunJournal } from "../run_journal.ts";
import type { TensorSink } from "../tensor.ts";
import { VERSION } from "../version.ts";
import type { OutputShape } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";

/** Flags that name input files: what is in them counts, as `inputs`. */
const FILES = ["q", "k", "v", "mask", "projection-matrix", "state-in"] as const;
/** Flags that say what is reported, and how. */
export const REPORTING = [
  ...["redraws", "health", "max-error", "profile", "report", "format", "plot", "no-plot", "ascii"],
  ...["json", "jsonl", "quiet", "verbose", "no-color"],
] as const;
/**
 * Flags that decide neither the output nor the error on its rows. Backend, threads and the output's type are settled when a run begins, and
 * stand in journals as what they were settled to.
 */
const FREE: ReadonlySet<string> = new Set([
  ...FILES,
  ...["output", "output-dtype", "backend", "threads", "resume", "checkpoint-seconds", "dry-run"],
  ...REPORTING,
]);
/** Bytes of an input that are hashed: its header, and the first rows. */
const HEAD_BYTES = 2 ** 16;

/** What `--resume` asks for, once nothing speaks against it. */
export interface Resuming {
  /** The same command line, on the backend of the journal where several were allowed. */
  readonly invocation: Invocation;
  /** Opens the journal when it is known what runs; the run's own end removes it. */
  open(run: {
    readonly attention: Attention;
    readonly backend: Backend;
    readonly sizes: Sizes;
    readonly output: OutputShape;
  }): Promise<RunJournal>;
}

/** null without --resume. Throws UsageError for what cannot be resumed, before anything is opened. */
export async function resumingOf(invocation: Invocation, terminal: Terminal): Promise<Resuming | null> {
  const { flags, sources } = invocation;
  if (flags.resume !== true) {
    if (sources["checkpoint-seconds"] === "flag") {
      throw new UsageError("Cannot use --checkpoint-seconds without --resume: there are no checkpoints");
    }
    return null;
  }
  refuseFlags(flags);
  const path = String(flags.output);
  const names = partialNames(path);
  const inputs = await inputsOf(invocation);
  const found = await RunJournal.find(names);
  const every = Number(flags["checkpoint-seconds"]);
  return {
    invocation: found ? { ...invocation, flags: { ...flags, backend: backendOf(flags, found) } } : invocation,
    async open({ attention, backend, sizes, output }) {
      if (attention.nearFar && attention.nearFar.top > 0) {
        throw new UsageError("Cannot use --resume with --top: a state does not hold the keys of clusters");
      }
      const settings = {
        ...Object.fromEntries(
          Object.entries(flags).filter(([name, value]) => !FREE.has(name) && value !== undefined)
            .map(([name, value]) => [`--${name}`, typeof value === "string" ? value : JSON.stringify(value)]),
        ),
        inputs: inputs.map(({ role }) => role).join(" "),
        rows: `${sizes.queryRows} × ${sizes.keyRows}`,
        output: `${outputFormat(path).name} ${output.dtype} [${output.shape.join(", ")}]`,
        backend: backend.name,
        device: backend.device,
        processor: `${os.cpus()[0]?.model ?? "unknown"} ${os.platform()} ${os.arch()}`,
        runtime: terminal.runtime,
      };
      const subject = { version: VERSION, settings, inputs: inputs.map(({ file }) => file) };
      return await RunJournal.open(names, subject, found, { path, every });
    },
  };
}

function refuseFlags(flags: Invocation["flags"]): void {
  const cannot = (what: string, why: string) => new UsageError(`Cannot use --resume with ${what}: ${why}`);
  if (flags.output === undefined) {
    throw new UsageError("Cannot use --resume without --output: name the file that is written");
  }
  const path = String(flags.output);
  if (path === "-" || isOther(path)) {
    throw cannot(`--output ${path}`, "only a file keeps what was written");
  }
  if (flags.weights !== undefined) throw cannot("--weights", "a layer's projections are not kept");
  if (flags.compat !== "exact") throw cannot(`--compat ${flags.compat}`, "states of other numerics are not kept");
  if (flags["state-out"] !== undefined && flags["state-out"] === flags["state-in"]) {
    throw cannot("one file as --state-in and --state-out", "a run that goes on needs what it began with, name another");
  }
  if (flags.profile === true) throw cannot("--profile", "times of stages are those of one run");
}

/** Whether something lies there that is no file: a pipe, a device, a folder. */
const isOther = (path: string): boolean => disk.identity(path) === null && changeTime(path) !== null;

/** Every input file by its place on the command line. Throws UsageError for pipes. */
async function inputsOf(
  { arguments: [input], flags }: Invocation,
): Promise<{ role: string; file: JournalInput }[]> {
  const given = [["INPUT", input], ...FILES.map((name) => [`--${name}`, flags[name]])]
    .filter(([, path]) => path !== undefined) as [string, string][];
  const inputs: { role: string; file: JournalInput }[] = [];
  for (const [role, path] of given) {
    if (path === "-") {
      throw new UsageError("Cannot use --resume with standard input: only a file can be read again, name one");
    }
    if (isOther(path)) throw new UsageError(`Cannot use --resume with "${path}": only a file can be read again`);
    await using source = await openFile(path);
    const identity = disk.identity(path)!;
    const head = new Uint8Array(Math.min(HEAD_BYTES, source.byteLength));
    await source.read(head, 0);
    inputs.push({ role, file: { ...identity, head: createHash("sha256").update(head).digest("hex") } });
  }
  return inputs;
}

/** Of several backends that will do, the one that the journal was begun on. */
function backendOf({ backend }: Invocation["flags"], { settings }: Found): unknown {
  const wishes = parseBackendList(String(backend));
  return wishes.length > 1 && wishes.some(({ name }) => name === settings.backend) ? settings.backend : backend;
}

/** The sink of a journal's output, from the row on where its checkpoint is. */
export async function resumedSink(journal: RunJournal, output: OutputShape): Promise<TensorSink> {
  if (journal.output === null) return new CompleteSink();
  return await openSink(output.path, { ...output, bytes: journal.output, written: journal.last?.rows ?? 0 });
}

/** An output that has been written and has its name. */
class CompleteSink implements TensorSink {
  async write(): Promise<void> {
    throw new RangeError("The output is complete");
  }

  async finish(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Runs with a journal: removes it at the end; where there is none, `stopped` hears how to go on. */
export async function withJournal<T>(
  journal: RunJournal,
  run: () => Promise<T>,
  stopped: (parting: string) => void,
): Promise<T> {
  temporaries.parting = () => journal.parting;
  try {
    const result = await run();
    journal.finish();
    return result;
  } catch (error) {
    stopped(journal.parting);
    throw error;
  } finally {
    temporaries.parting = null;
  }
}
