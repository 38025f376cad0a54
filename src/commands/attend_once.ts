/** One run of `attend`, from a command line to its report: the command's only one, or one of a batch. */
import type { Attention } from "../attention.ts";
import { TRIED_MAPS } from "../candidates.ts";
import type { ChooseOptions } from "../choose.ts";
import { UsageError } from "../errors.ts";
import { AUTO } from "../feature_map.ts";
import type { Report } from "../report.ts";
import { attend, sizesOf } from "../run.ts";
import { shapeOf, type StateOptions } from "../run_base.ts";
import { writeState } from "../state_file.ts";
import { lambdaOf } from "../trial.ts";
import { type Attempt, patiently } from "./attend_again.ts";
import { openOutputFor, outputOf } from "./attend_files.ts";
import { openLayer } from "./attend_layer.ts";
import { openAttention } from "./attend_open.ts";
import type { Invocation, Terminal } from "./command.ts";
import type { Progress } from "./progress.ts";
import { continued } from "./state_flags.ts";

/** Rows with NaN are counted and remembered in memory only: neither a checkpoint nor a state knows them. */
function refuseGaps({ flags }: Invocation): void {
  if (flags["on-nan"] === undefined || flags["on-nan"] === "error") return;
  const other = ["resume", "state-in", "state-out"].find((name) => flags[name] !== undefined && flags[name] !== false);
  if (other) throw new UsageError(`Cannot use --on-nan ${flags["on-nan"]} with --${other}: leave one of them out`);
}

/** Opens the inputs and a backend, runs, and writes the output; returns what it found. Nothing is printed but why it takes longer. */
export async function attendOnce(
  invocation: Invocation,
  terminal: Terminal,
  progress: Progress,
  options: { readonly keepRows: boolean },
): Promise<Report> {
  return await patiently(
    invocation,
    (words) => (progress.clear(), terminal.err(words)),
    (attempt) => run(invocation, terminal, progress, options.keepRows, attempt),
  );
}

async function run(
  given: Invocation,
  terminal: Terminal,
  progress: Progress,
  keepRows: boolean,
  attempt: Attempt,
): Promise<Report> {
  refuseGaps(given);
  const early = given.flags.resume === true || given.sources["checkpoint-seconds"] === "flag";
  const asked = early ? await import("./attend_resume.ts") : null;
  const resuming = await asked?.resumingOf(given, terminal);
  const { invocation, before } = await continued(resuming?.invocation ?? given);
  const { flags } = invocation;
  await using open = new AsyncDisposableStack();
  const opening = await openAttention(invocation, terminal, open, before);
  const { chosen, attention, opened, backend, refused, memory } = opening;
  const wish = attempt.tileRows ?? opening.tileRows;
  await using layer = chosen && await openLayer(chosen, backend, opened.inputs, wish);
  const inputs = layer?.inputs ?? opened.inputs;
  const sizes = sizesOf(inputs, attention.causal);
  const columns = chosen ? { heads: 1, valueDim: chosen.layout.out.outputs } : {};
  const output = outputOf(flags, opened, { ...sizes, ...columns });
  const journal = resuming && output && open.use(await resuming.open({ attention, backend, sizes, output }));
  const compute = async () => {
    await using file = output &&
      await openOutputFor(output, journal ? await asked?.resumedSink(journal, output) : undefined);
    const { path = "", dtype = "", shape = [] } = file ?? {};
    const sink = file && layer ? Object.assign(layer.sources.sink(file), { path, dtype, shape }) : file;
    const choose = () => chooseSettings({ inputs, attention, backend, signal: terminal.signal });
    const settled = await (journal && isOpen(attention) ? journal.choice(choose) : choose());
    const lambda = lambdaOf(settled, sizes.heads);
    attempt.tileRows = shapeOf(settled, sizes, backend.limits, layer?.tileRows ?? wish).tileRows;
    return await attend({
      inputs,
      attention: settled,
      lambda,
      shrinkFitted: attention.shrink === "auto" && lambda !== null,
      chosen: attention.features === AUTO,
      backend,
      refused,
      tileRows: layer?.tileRows ?? wish,
      layer: layer?.options,
      check: Number(flags.check),
      redraws: Number(flags.redraws),
      health: flags.health === true,
      keepRows,
      sink,
      state: before || flags["state-out"] !== undefined
        ? { before, keep: keeper(flags["state-out"] as string | undefined) }
        : undefined,
      encoding: (flags.encode as string | undefined) ?? null,
      peakBytes: terminal.peakBytes,
      maxBytes: memory?.maxBytes,
      progress: (stage, done, total) => progress.update(stage, done, total),
      signal: terminal.signal,
      journal: journal ?? undefined,
    });
  };
  if (!journal || !asked) return await compute();
  return await asked.withJournal(journal, compute, (parting) => {
    progress.clear();
    terminal.err(`${parting}\n`);
  });
}

/** Writes the state to `--state-out`, which may be the file that it came from. */
function keeper(path: string | undefined): StateOptions["keep"] {
  if (path === undefined) return undefined;
  return async (after) => {
    await writeState(path, after);
    return path;
  };
}

/** Whether something is left to choice. */
const isOpen = ({ features, shrink }: Attention): boolean => features === AUTO || shrink === "auto";

/** Decides what was left to choice; the code for it is loaded only then. */
async function chooseSettings(options: Omit<ChooseOptions, "maps">): Promise<Attention> {
  const { attention } = options;
  if (!isOpen(attention)) return attention;
  const { chooseAttention } = await import("../choose.ts");
  return await chooseAttention({ ...options, maps: TRIED_MAPS });
}
