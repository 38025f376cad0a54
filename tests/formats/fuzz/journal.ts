/** Journals of runs (src/run_journal.ts) and outputs that are begun: refused, or gone on with to the output that an undisturbed run has. */
import { createHash } from "node:crypto";
import type { Attention } from "../../../src/attention.ts";
import { RunJournal } from "../../../src/run_journal.ts";
import { FragileDisk, PowerCut } from "../../unit/fragile_disk.ts";
import { ATTENTION, names, runOn } from "../../unit/journal_run.ts";
import { joined } from "../torch_made.ts";
import { type Base, type Kind, type Made, refusedOr } from "./case.ts";
import { damagedJson } from "./json.ts";
import { one, type Pick } from "./random.ts";

/** Runs that are cut in the middle of their keys, or of their rows, and the output that they have in the end. */
interface Cut extends Base {
  readonly attention: Attention;
  readonly disk: FragileDisk;
  readonly output: Uint8Array;
}

async function cut(name: string, attention: Attention, part: number): Promise<Cut> {
  const calm = new FragileDisk();
  await runOn(calm, attention);
  const disk = new FragileDisk(Math.floor(part * calm.calls));
  try {
    await runOn(disk, attention);
  } catch (error) {
    if (!(error instanceof PowerCut)) throw error;
  }
  const left = disk.restarted("everything", 1);
  const bytes = left.contents().get(names.journal)!;
  return { name: `journal, ${name}`, attention, disk: left, bytes, output: calm.contents().get(names.output)! };
}

const CUTS: readonly Cut[] = await Promise.all([
  cut("begun", ATTENTION, 0.2),
  cut("keys", ATTENTION, 0.5),
  cut("rows", ATTENTION, 0.8),
  cut("causal", { ...ATTENTION, causal: true, features: "hyperbolic" }, 0.6),
  cut(
    "fitted",
    { ...ATTENTION, features: "hyp-aderf+sderf", fitting: { params: { kind: "file" }, centre: "on" } },
    0.6,
  ),
  cut("exact", { ...ATTENTION, features: "softmax" }, 0.6),
]);

/** src/packed.ts: magic, lengths of text and numbers, SHA-256, text, numbers. */
const HEAD = 56;

function repacked(bytes: Uint8Array, text: string, numbers: Uint8Array, lengths?: readonly number[]): Uint8Array {
  const json = new TextEncoder().encode(text);
  const head = new DataView(new ArrayBuffer(16));
  head.setFloat64(0, lengths?.[0] ?? json.length, true);
  head.setFloat64(8, lengths?.[1] ?? numbers.length, true);
  const sizes = new Uint8Array(head.buffer);
  const sum = createHash("sha256").update(sizes).update(json).update(numbers).digest();
  return joined(bytes.subarray(0, 8), sizes, new Uint8Array(sum), json, numbers);
}

function parted(bytes: Uint8Array) {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getFloat64(8, true);
  return { text: new TextDecoder().decode(bytes.subarray(HEAD, HEAD + length)), numbers: bytes.slice(HEAD + length) };
}

function forged(bytes: Uint8Array, pick: Pick): Uint8Array {
  const { text, numbers } = parted(bytes);
  switch (pick(6)) {
    case 0: {
      const wrong = one(pick, [0, -1, 0.5, NaN, Infinity, 1e300, 2 ** 32, text.length - 1, text.length + 0.25]);
      const rest = text.length + numbers.length - wrong;
      return repacked(bytes, text, numbers, one(pick, [[wrong, rest], [wrong, numbers.length], [text.length, wrong]]));
    }
    case 1: {
      if (numbers.length === 0) return repacked(bytes, changed(text, pick), numbers);
      const place = 8 * pick(numbers.length / 8);
      new DataView(numbers.buffer).setFloat64(place, one(pick, [NaN, Infinity, -Infinity, 1e308, 5e-324, -1, 0]), true);
      return repacked(bytes, text, numbers);
    }
    default:
      return repacked(bytes, changed(text, pick), numbers);
  }
}

/** Changes to all that a journal is looked at for: what was fitted and chosen is taken as it is. */
function changed(text: string, pick: Pick): string {
  const tree = JSON.parse(text);
  const { fit, mean } = tree.checkpoint ?? {};
  const rest = { ...tree, checkpoint: tree.checkpoint && { ...tree.checkpoint, fit: 0, mean: 0 } };
  return damagedJson({ ...rest, choice: 0 }, pick)
    .replace('"choice":0', '"choice":null')
    .replace('"fit":0', () => `"fit":${JSON.stringify(fit)}`)
    .replace('"mean":0', () => `"mean":${JSON.stringify(mean)}`);
}

function aimed(bytes: Uint8Array, pick: Pick): Uint8Array {
  const made = forged(bytes, pick);
  return pick(2) === 0 ? joined(made.subarray(0, 24), bytes.subarray(24, HEAD), made.subarray(HEAD)) : one(pick, [
    new Uint8Array(0),
    bytes.subarray(0, pick(HEAD + 1)),
    joined(bytes, bytes),
    joined("PFJRNL2\n", bytes.subarray(8)),
  ]);
}

async function judge(_: string, bytes: Uint8Array, step: (name: string) => void, made: Made): Promise<string> {
  const { attention, disk: before, output, bytes: own } = CUTS.find(({ name }) => name === made.what)!;
  const disk = before.restarted("everything", 1);
  const file = disk.open(names.journal, { create: true });
  await file.write(bytes, 0);
  step("read");
  const found = await refusedOr(names.journal, () => RunJournal.find(names, disk));
  if (!found) return "refused";
  step("run");
  const ended = await refusedOr("out.npz", async () => {
    await runOn(disk, attention);
    return disk.contents().get(names.output)!;
  });
  if (made.how !== "forged" && Buffer.compare(own, bytes) !== 0) {
    throw new Error("a damaged journal is taken for whole");
  }
  if (!ended) return "refused to go on";
  const same = Buffer.compare(ended, output) === 0;
  if (made.how !== "forged" && !same) throw new Error("the output is another one");
  if (ended.length !== output.length) throw new Error(`the output has ${ended.length} bytes, not ${output.length}`);
  return same ? "gone on with" : "gone on with what was forged";
}

export const journal: Kind = { file: "out.npz.journal", bases: CUTS, aimed, forged, judge };
