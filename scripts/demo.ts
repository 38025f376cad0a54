/** `npm start`: attention over a real sequence, with words that tell a newcomer what happened. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import process from "node:process";

const path = (name: string) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const genome = "examples/data/lambda_virus.fa";

console.log(
  `Performer (FAVOR+) attention over the genome of phage lambda: 48,502 bases, each an embedding of the words around it.
Exact softmax attention would compare every base with every other, 2.4 billion pairs; here keys and values are summarised
once in a small state, and every base asks that state. 256 rows are then compared with exact softmax.

$ performer attend ${genome} --encode kmer:6
`,
);
const args = [path("cli.ts"), "attend", genome, "--encode", "kmer:6"];
const { status } = spawnSync(process.execPath, args, { cwd: path("."), stdio: "inherit" });
if (status === 0) {
  console.log(`
How to read it:
  throughput   bases per second of compute; twice the length takes twice the time, not four times
  relative L2  distance between this output and exact softmax attention, as a fraction of the exact output
  uniform      the same distance for an answer that ignores attention and always returns the mean of V
  skill        1 = exact, 0 = no better than that mean, below 0 = worse

Next: npx performer attend ${genome} --encode kmer:6 --features softmax    (exact: what it costs without the estimate)
      npx performer attend --help
`);
}
process.exit(status ?? 1);
