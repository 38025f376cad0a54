/**
 * Damaged and hostile files of every kind: read as what they say or refused by name, never another error and never slow. scripts/fuzz.ts
 * runs such files by the thousand in processes of their own. PERFORMER_FUZZ sets the number here, PERFORMER_FUZZ_SEED the seed.
 */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { caseOf, KINDS } from "./fuzz/cases.ts";
import { fileOf } from "./fuzz/files.ts";
import { judge } from "./fuzz/judge.ts";
import { stopwatch } from "./fuzz/random.ts";
import { folder } from "./support.ts";

const RUNS = Number(process.env.PERFORMER_FUZZ ?? 1500);
const SEED = Number(process.env.PERFORMER_FUZZ_SEED ?? 1);
const SLOW = 2000;

/** Runs `act` on a file; what is wrong or slow says which file it was. */
async function watched<T>(what: string, act: () => Promise<T>): Promise<T> {
  const passed = stopwatch();
  const result = await act().catch((error) => {
    throw new Error(`${what}: ${error}`, { cause: error });
  });
  const time = passed();
  if (time > SLOW) throw new Error(`${what}: ${time} ms`);
  return result;
}

test(`${RUNS} damaged and hostile files of tensors are read or refused`, async () => {
  await using dir = folder();
  const path = dir.file("fuzz.bin");
  const total = { read: 0, partly: 0, refused: 0, confirmed: 0, models: 0 };
  for (let index = 0; index < RUNS; index++) {
    const { what, how, bytes } = fileOf(SEED, index, 5000);
    writeFileSync(path, bytes);
    const { kind, confirmed, model } = await watched(
      `file ${index} of seed ${SEED} (${what}, ${how})`,
      () => judge(path, bytes),
    );
    total[kind]++;
    total.confirmed += confirmed;
    if (model) total.models++;
  }
  // The damage does something, and not always; and what is read is checked.
  for (const count of Object.values(total)) expect(count).toBeGreaterThan(RUNS / 200);
}, Math.max(60_000, RUNS * 50));

const EACH = Math.ceil(RUNS / 15);

test.each(Object.keys(KINDS))(`${EACH} damaged and forged files: %s`, async (kind) => {
  await using dir = folder();
  const seen = { read: 0, refused: 0 };
  for (let index = 0; index < EACH; index++) {
    const { what, how, file, bytes, judge } = caseOf(SEED, index, { only: kind });
    writeFileSync(dir.file(file), bytes);
    const outcome = await watched(`${kind} ${index} of seed ${SEED} (${what}, ${how})`, () => judge(dir.file(file)));
    seen[/^(read|gone)/.test(outcome) ? "read" : "refused"]++;
  }
  expect(Math.min(seen.read, seen.refused)).toBeGreaterThan(0);
}, Math.max(60_000, EACH * 200));
