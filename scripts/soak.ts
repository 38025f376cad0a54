/**
 * Long work in one process: is its memory flat, its speed, its number of open descriptors, and is the last output right?
 *
 *     node_modules/.bin/bun scripts/soak.ts 1e9                  rows through one `attend -`
 *     node_modules/.bin/bun scripts/soak.ts 5000 --session       rounds of a script in one session
 *
 * `--runtime deno`, `--backend scalar` and `--every 1` (seconds between two looks) change what is watched and how. Exit 1 when a verdict
 * is no.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { soakSession, soakStream, wholeBlocks } from "../tests/reliability/soak.ts";
import { table, verdicts } from "../tests/reliability/soak_verdicts.ts";

const { values, positionals } = parseArgs({
  options: {
    session: { type: "boolean", default: false },
    runtime: { type: "string", default: "bun" },
    backend: { type: "string", default: "wasm" },
    every: { type: "string", default: "5" },
  },
  allowPositionals: true,
});
const { session, runtime, backend } = values;
const amount = Number(positionals[0] ?? 1e9);
const unit = session ? "rounds" : "rows";
const lines = process.stderr.isTTY ? ["\r\x1b[K", ""] : ["", "\n"];
const options = {
  runtime,
  backend,
  every: Number(values.every),
  told: (words: string) => void process.stderr.write(lines[0] + words + lines[1]),
};
const { done, seconds, tenths, drift } = session
  ? await soakSession(amount, options)
  : await soakStream(wholeBlocks(amount), options);
process.stderr.write(lines[0]);
console.log(`${done.toLocaleString("en")} ${unit} on ${runtime}, ${backend}, in ${Math.round(seconds)} s\n`);
console.log(table(tenths, unit, drift));
console.log();
const found = verdicts(tenths, drift);
for (const { what, passed, found: words } of found) console.log(`* ${passed ? "yes" : "NO"}: ${what} (${words})`);
process.exitCode = found.every(({ passed }) => passed) ? 0 : 1;
