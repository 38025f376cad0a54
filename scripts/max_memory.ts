/**
 * How far memory that `attend --max-memory` plans for is from the peak of the process, over kinds of runs: what the allowances of
 * src/memory.ts are taken from.
 *
 *     node_modules/.bin/bun scripts/max_memory.ts [bun|deno] [PART OF A CASE]
 */
import { writeFileSync } from "node:fs";
import process from "node:process";
import { npyBytes, performer, scratch, wave } from "../tests/cli/process.ts";

const MIB = 2 ** 20;
const { path, remove } = scratch();
const file = (name: string, shape: readonly number[]) =>
  writeFileSync(path(name), npyBytes(shape, (i) => 0.6 * wave(i % 65_521)));
file("thin.npy", [100_000, 16]);
file("wide.npy", [8_000, 512]);
file("heads.npy", [8, 8_000, 64]);

const INPUTS = { thin: ["thin.npy"], wide: ["wide.npy", "--heads", "8"], heads: ["heads.npy"] };
const KINDS: Readonly<Record<string, readonly string[]>> = {
  usual: [],
  causal: ["--causal"],
  "many features": ["-m", "2048", "--check", "0"],
  "many features, causal": ["-m", "2048", "--causal", "--check", "0"],
  "much checked": ["--check", "2048"],
  redrawn: ["--redraws", "4", "--health"],
  "redrawn, causal": ["--redraws", "4", "--causal"],
  fitted: ["--features", "hyp-aderf+sderf"],
  trigonometric: ["--features", "trigonometric", "--causal"],
  elu: ["--features", "elu"],
  none: ["--features", "none"],
  "a state": ["--state-out", "state.safetensors", "--causal", "-m", "1024"],
  piped: ["-o", "-"],
  resumed: ["--resume", "-o", "resumed.npy", "--checkpoint-seconds", "0.1"],
  softmax: ["--features", "softmax", "--rows", "0:4096"],
};
const BACKENDS = {
  "wasm × 1, 64": ["--threads", "1", "--tile", "64"],
  "wasm × 1": ["--threads", "1"],
  "wasm × 2": ["--threads", "2"],
  "scalar, 64": ["--backend", "scalar", "--tile", "64"],
  scalar: ["--backend", "scalar"],
};

const [runtime = "bun", part = ""] = process.argv.slice(2);
const slack: number[] = [];
for (const [input, [name, ...heads]] of Object.entries(INPUTS)) {
  for (const [kind, flags] of Object.entries(KINDS)) {
    for (const [device, settings] of Object.entries(BACKENDS)) {
      const title = `${input} · ${kind} · ${device}`;
      if (!title.includes(part)) continue;
      const slow = device.startsWith("scalar") && !flags.includes("--rows");
      const rows = slow ? ["--rows", "0:2000"] : [];
      const backend = slow || device.startsWith("scalar") ? [] : ["--backend", "wasm"];
      const output = flags.includes("-o") ? [] : ["-o", path("out.npy")];
      const line = ["attend", path(name), ...heads, ...flags, ...rows, ...settings, ...backend, ...output];
      const words = [...line, "--max-memory", "1TB", "--json"].map((word) =>
        /^(state|resumed)\./.test(word) ? path(word) : word
      );
      const planned = await performer([...words, "--dry-run"], { runtime });
      const run = await performer(words, { runtime });
      if (run.code !== 0 || planned.code !== 0) {
        console.log(`${title}: ${planned.stderr || run.stderr}`);
        continue;
      }
      const { peakBytes, attention: { tileRows } } = JSON.parse(flags.includes("-") ? run.stderr : run.stdout);
      const { plannedBytes } = JSON.parse(planned.stdout);
      const left = (plannedBytes - peakBytes) / MIB;
      slack.push(left);
      const figures = [plannedBytes, peakBytes].map((bytes) => (bytes / MIB).toFixed(0).padStart(5)).join(" ");
      console.log(`${figures} ${left.toFixed(0).padStart(5)}  ${title}, tiles of ${tileRows}`);
    }
  }
}
remove();
console.log(`left between plan and peak, MiB: ${Math.min(...slack).toFixed(1)} to ${Math.max(...slack).toFixed(1)}`);
