/**
 * Damaged and hostile files: right numbers or an InputError that names the file, never another error and never slow. scripts/fuzz.ts
 * runs the same files by the thousand in processes of their own. PERFORMER_FUZZ sets the number here, PERFORMER_FUZZ_SEED the seed.
 */
import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { fileOf } from "./fuzz/files.ts";
import { judge } from "./fuzz/judge.ts";
import { stopwatch } from "./fuzz/random.ts";
import { folder } from "./support.ts";

const RUNS = Number(process.env.PERFORMER_FUZZ ?? 1500);
const SEED = Number(process.env.PERFORMER_FUZZ_SEED ?? 1);

test(`${RUNS} damaged and hostile files are read or refused`, async () => {
  await using dir = folder();
  const path = dir.file("fuzz.bin");
  const total = { read: 0, partly: 0, refused: 0, confirmed: 0, models: 0 };
  for (let index = 0; index < RUNS; index++) {
    const { what, how, bytes } = fileOf(SEED, index, 5000);
    writeFileSync(path, bytes);
    const passed = stopwatch();
    try {
      const { kind, confirmed, model } = await judge(path, bytes);
      total[kind]++;
      total.confirmed += confirmed;
      if (model) total.models++;
    } catch (error) {
      throw new Error(`file ${index} of seed ${SEED} (${what}, ${how}): ${error}`, { cause: error });
    }
    const time = passed();
    if (time > 2000) throw new Error(`file ${index} of seed ${SEED} (${what}, ${how}): ${time} ms`);
  }
  // The damage does something, and not always; and what is read is checked.
  for (const count of Object.values(total)) expect(count).toBeGreaterThan(RUNS / 200);
}, Math.max(60_000, RUNS * 50));
