/**
 * Kills `attend --resume` at random moments, round after round, and compares the outputs with undisturbed ones (docs/resume.md):
 *
 *     node_modules/.bin/bun scripts/kill_rounds.ts 200 1      (rounds, seed)
 */
import process from "node:process";
import { killRounds, MOMENTS } from "../tests/cli/kill_rounds.ts";

const [rounds = 200, seed = 1] = process.argv.slice(2).map(Number);
const before = performance.now();
const found = await killRounds(rounds, {
  seed,
  told: (words) => process.stderr.write(`\r\x1b[K${words.slice(0, 150)}`),
});
process.stderr.write("\r\x1b[K");
console.log(`${found.rounds} rounds, ${found.kills} kills, ${found.finished} runs over before their kill:`);
console.log(`${found.rounds} outputs equal to undisturbed ones byte for byte, and as many reports but for times`);
for (const moment of MOMENTS) console.log(`  ${String(found.moments[moment]).padStart(4)}  ${moment}`);
console.log(`${Math.round((performance.now() - before) / 1000)} s`);
