/** Journals under every cut of the power, under other runs, and as bytes. */
import { describe, expect, test } from "bun:test";
import type { Attention } from "../../src/attention.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { ownMark, type ProcessMark, runs } from "../../src/processes.ts";
import { openSink } from "../../src/formats/sink.ts";
import { Inputs } from "../../src/inputs.ts";
import { pack, unpack } from "../../src/packed.ts";
import { partialNames } from "../../src/partial_output.ts";
import { attend } from "../../src/run.ts";
import { type JournalSubject, RunJournal } from "../../src/run_journal.ts";
import { wave } from "../cli/process.ts";
import { FragileDisk, PowerCut, type Survival } from "./fragile_disk.ts";
import { memoryTensor } from "./memory_tensor.ts";

const names = partialNames("/somewhere/out.npz");
const SHAPE = [70, 8];
const subject: JournalSubject = { version: "1", settings: { features: "positive" }, inputs: [] };
const dead: ProcessMark = { pid: 1, started: "never", place: "", host: "a", machine: "" };

const ATTENTION: Attention = {
  features: "positive",
  numFeatures: 8,
  projection: "orthogonal",
  norms: "chi",
  seed: 1,
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
};

/** One run as `attend --resume` has it, on a disk that may fail. */
async function runOn(disk: FragileDisk, attention: Attention): Promise<void> {
  const found = await RunJournal.find(names, disk);
  const now = () => found ? 1e9 : 0; // the one before has been silent for long
  const clock = () => 0; // checkpoints are always due
  await using journal = await RunJournal.open(names, subject, found, {
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

describe("power cuts", () => {
  const kinds: [string, Attention][] = [
    ["bidirectional", ATTENTION],
    ["causal", { ...ATTENTION, causal: true, features: "hyperbolic" }],
    ["softmax", { ...ATTENTION, features: "softmax" }],
    ["none", { ...ATTENTION, features: "none" }],
  ];
  test.each(kinds)("before every call, whatever of it survives: %s", async (_, attention) => {
    const calm = new FragileDisk();
    await runOn(calm, attention);
    expect([...calm.contents().keys()]).toEqual([names.output]);
    const whole = calm.contents().get(names.output)!;
    for (let cutAt = 1; cutAt <= calm.calls; cutAt++) {
      for (const survival of ["nothing", "everything", "some"] as Survival[]) {
        const disk = new FragileDisk(cutAt);
        expect(await runOn(disk, attention).catch((error) => error)).toBeInstanceOf(PowerCut);
        const after = disk.restarted(survival, cutAt);
        // Under its name an output is whole, or not there.
        const named = after.contents().get(names.output);
        if (named) expect(Buffer.compare(named, whole)).toBe(0);
        // A second cut somewhere in the run that goes on, then the run that comes to its end.
        after.cutAt = 1 + (cutAt * 13) % 40;
        await runOn(after, attention).catch((error) => expect(error).toBeInstanceOf(PowerCut));
        const last = after.restarted(survival, cutAt + 1);
        if (!last.contents().has(names.output) || last.contents().has(names.journal)) await runOn(last, attention);
        expect([...last.contents().keys()].filter((name) => name !== names.next)).toEqual([names.output]);
        expect(Buffer.compare(last.contents().get(names.output)!, whole)).toBe(0);
      }
    }
  }, 60_000);
});

describe("who may go on", () => {
  const open = async (disk: FragileDisk, wanted: JournalSubject, owner: ProcessMark, now: number) => {
    const found = await RunJournal.find(names, disk);
    const options = { path: names.output, every: 5, disk, owner, now: () => now };
    await using _ = await RunJournal.open(names, wanted, found, options);
  };

  test("a process that cannot be seen is left a minute, and its checkpoints", async () => {
    const disk = new FragileDisk();
    await open(disk, subject, { ...dead, host: "node7" }, 1e6);
    const other = { ...dead, pid: 2 };
    const words = "process 1 on node7 wrote its journal 30 s ago and may still be at work; try again in 45 s";
    expect(open(disk, subject, other, 1e6 + 30_000)).rejects.toThrow(words);
    await open(disk, subject, other, 1e6 + 75_000);
    await open(disk, subject, other, 1e6 + 75_001); // it goes on with its own
  });

  test("other versions and settings", async () => {
    const disk = new FragileDisk();
    await open(disk, subject, dead, 0);
    expect(open(disk, { ...subject, version: "2" }, dead, 1e9)).rejects.toThrow(
      "its journal is of performer 1, this is 2",
    );
    const settings = { features: "relu", "--causal": "true" };
    expect(open(disk, { ...subject, settings }, dead, 1e9)).rejects.toThrow(
      "features positive, now relu; --causal not given, now true",
    );
  });

  test("this process runs, and one of another start or container is not it", async () => {
    const own = ownMark();
    if (own.place === "") return; // no /proc here
    expect(runs(own)).toBe(true);
    expect(runs({ ...own, started: "0" })).toBe(false);
    expect(runs({ ...own, pid: 2 ** 30 })).toBe(false);
    expect(runs({ ...own, place: "elsewhere", machine: "another" })).toBeNull();
    expect(runs({ ...own, place: own.place.replace(" ", " other"), machine: "another" })).toBeNull(); // a container
    const named = { ...own, machine: own.machine || "unknown" };
    expect(runs({ ...named, place: "before" })).toBe(own.machine === "" ? null : false); // this machine, since restarted
  });
});

describe("packed values", () => {
  test("every bit comes back", () => {
    const value = {
      text: "æ",
      list: [1, null, true, -0, NaN, Infinity, -Infinity, 0.1, 5e-324],
      wide: new Float64Array([-0, NaN, 1 / 3, 5e-324]),
      single: new Float32Array([0.1, -0, Infinity]),
      empty: new Float64Array(),
      deep: [{ part: new Float64Array([7]) }],
    };
    const back = unpack(pack(value), "it") as typeof value;
    const bits = ({ buffer }: Float64Array) => Buffer.from(buffer).toString("hex"); // NaN is not equal to itself
    expect(bits(back.wide)).toBe(bits(value.wide));
    expect({ ...back, wide: 0 }).toEqual({ ...value, wide: 0 });
    expect(Object.is(unpack(pack(-0), "it"), -0)).toBe(true);
  });

  test("no byte can change unseen, none can be missing", () => {
    const bytes = pack({ a: [1, 2], b: new Float64Array([3]) });
    for (let i = 0; i < bytes.length; i++) {
      const changed = bytes.slice();
      changed[i] ^= 1 << (i % 8);
      expect(() => unpack(changed, "it")).toThrow('Cannot read "it"');
      expect(() => unpack(bytes.subarray(0, i), "it")).toThrow('Cannot read "it"');
    }
    expect(() => unpack(new Uint8Array([...bytes, 0]), "it")).toThrow("its head says");
  });
});
