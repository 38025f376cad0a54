/** Journals under every cut of the power, under other runs, and as bytes. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import type { Attention } from "../../src/attention.ts";
import { ownMark, type ProcessMark, runs } from "../../src/processes.ts";
import { InputError } from "../../src/errors.ts";
import { pack, unpack } from "../../src/packed.ts";
import { type JournalSubject, RunJournal } from "../../src/run_journal.ts";
import { FragileDisk, PowerCut, type Survival } from "./fragile_disk.ts";
import { ATTENTION, dead, names, runOn, subject } from "./journal_run.ts";

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

describe("journals of another maker", () => {
  const found = async (change: (journal: Loose) => void) => {
    const disk = new FragileDisk();
    await runOn(disk, ATTENTION).catch(() => {});
    const cut = new FragileDisk(Math.floor(0.8 * disk.calls));
    await runOn(cut, ATTENTION).catch(() => {});
    const left = cut.restarted("everything", 1);
    const journal = unpack(left.contents().get(names.journal)!, "it") as Loose;
    change(journal);
    const file = left.open(names.journal, { create: true });
    await file.write(pack(journal), 0);
    return left;
  };

  const WRONG: readonly (readonly [words: string, change: (journal: Loose) => void])[] = [
    ["owner is null, expected an object", (journal) => journal.owner = null],
    ["settings is [], expected texts by name", (journal) => journal.settings = []],
    ["checkpoint.seconds is missing", (journal) => delete journal.checkpoint.seconds],
    ["checkpoint.tileRows is 0", (journal) => journal.checkpoint.tileRows = 0],
    ["checkpoint.state.S is", (journal) => journal.checkpoint.state.S = new Float64Array(1)],
    ["checkpoint.approx is []", (journal) => journal.checkpoint.approx = []],
    ["fit is {}", (journal) => journal.checkpoint.fit = {}],
    ["extra is not known here", (journal) => journal.extra = 1],
    ["it has seen 70 key rows and written 71 rows, of 70 and 70", (journal) => journal.checkpoint.rows = 71],
    ["it lacks the state of 70 key rows", (journal) => journal.checkpoint.state = null],
    ["numbers of its sampled rows", (journal) => journal.checkpoint.approx = new Float64Array(1)],
    ["its state is 1 × 8 × 8, expected 2 × 8 × 4", ({ checkpoint: { state } }) => {
      Object.assign(state, { heads: 1, valueDim: 8 });
      for (const name of ["c", "z"]) state[name] = state[name].slice(8);
    }],
  ];
  test.each(WRONG)("are refused, whole as they are: %s", async (words, change) => {
    const disk = await found(change);
    const error = await runOn(disk, ATTENTION).catch((error) => error);
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(words);
  });

  test("are refused where their text is none of ours", () => {
    const bytes = pack({ a: new Float64Array(2) });
    const text = new TextDecoder("latin1").decode(bytes);
    const other = Uint8Array.from(text.replace("[0,2,8]", "[9,9,8]"), (letter) => letter.charCodeAt(0));
    const sum = createHash("sha256").update(other.subarray(8, 24)).update(other.subarray(56)).digest();
    other.set(sum, 24);
    expect(() => unpack(other, "it")).toThrow('Cannot read "it": its text is not what performer writes');
  });
});

// deno-lint-ignore no-explicit-any
type Loose = any;

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
