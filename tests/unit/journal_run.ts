/** Runs of `attend --resume` on a disk in memory. */
import type { Attention } from "../../src/attention.ts";
import { scalar } from "../../src/backends/scalar.ts";
import type { ProcessMark } from "../../src/processes.ts";
import { openSink } from "../../src/formats/sink.ts";
import { Inputs } from "../../src/inputs.ts";
import { partialNames } from "../../src/partial_output.ts";
import { attend } from "../../src/run.ts";
import { type JournalSubject, RunJournal } from "../../src/run_journal.ts";
import { wave } from "../cli/process.ts";
import type { FragileDisk } from "./fragile_disk.ts";
import { memoryTensor } from "./memory_tensor.ts";
import { PLAIN } from "../plain_attention.ts";

export const names = partialNames("/somewhere/out.npz");
const SHAPE = [70, 8];
export const subject: JournalSubject = { version: "1", settings: { features: "positive" }, inputs: [] };
export const dead: ProcessMark = { pid: 1, started: "never", place: "", host: "a", machine: "" };

export const ATTENTION: Attention = { ...PLAIN, numFeatures: 8 };

/** What the journal of a run says of its attention. */
const subjectOf = ({ features, causal }: Attention): JournalSubject => {
  return { ...subject, settings: { features, "--causal": String(causal) } };
};

/** One run as `attend --resume` has it, on a disk that may fail. */
export async function runOn(disk: FragileDisk, attention: Attention): Promise<void> {
  const found = await RunJournal.find(names, disk);
  const now = () => found ? 1e9 : 0; // the one before has been silent for long
  const clock = () => 0; // checkpoints are always due
  await using journal = await RunJournal.open(names, subjectOf(attention), found, {
    clock,
    path: names.output,
    every: 0,
    disk,
    owner: dead,
    now,
  });
  const x = memoryTensor(Float64Array.from({ length: 70 * 8 }, (_, i) => wave(i)), 2, 4);
  await using backend = await scalar.open({ named: true });
  const options = { dtype: "f32", shape: SHAPE, heads: 2, width: 4, layout: "hld" } as const;
  const { output } = journal;
  await using sink = output &&
    await openSink("out.npz", { ...options, bytes: output, written: journal.last?.rows ?? 0 });
  await attend({
    inputs: new Inputs(x, x, x, null),
    attention,
    backend,
    refused: [],
    tileRows: 16,
    check: 8,
    redraws: 0,
    sink: sink && Object.assign(sink, { path: "out.npz", dtype: "f32", shape: SHAPE }),
    encoding: null,
    peakBytes: () => 0,
    journal,
  });
  journal.finish();
}
