/**
 * Measures every peer that is installed and prints a Markdown table; says on stderr what is missing and how to get it.
 *
 *     node bench/peers/run.mjs > peers.md
 *     node bench/peers/run.mjs --threads 1,2 -L 16384 --exact 4096 --jsonl peers.jsonl
 *
 * --check compares every installed peer with a dense float64 evaluation instead. $PYTHON names an interpreter to be tried first.
 */
import { appendFileSync, writeFileSync } from "node:fs";
import * as os from "node:os";
import { parseArgs } from "node:util";
import process from "node:process";
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { findPython, installedPeers, markdown, measurePeer, whole } from "./peers.mjs";

const { values: options } = parseArgs({
  options: {
    lengths: { type: "string", short: "L", default: "16384" },
    exact: { type: "string", default: "4096" },
    threads: { type: "string", default: String(os.availableParallelism()) },
    "num-features": { type: "string", short: "m", default: "256" },
    features: { type: "string", default: "positive,hyperbolic" },
    samples: { type: "string", default: "10" },
    seconds: { type: "string", default: "3" },
    jsonl: { type: "string" },
    check: { type: "boolean", default: false },
  },
});
const { installed, missing } = installedPeers();
for (const line of missing) console.error(line);

if (options.check) {
  let failed = installed.length === 0;
  for (const { script, needs, env } of installed) {
    if (env) continue;
    console.log(`${script}, ${findPython(needs)}`);
    const path = fileURLToPath(new URL(script, import.meta.url));
    failed = spawnSync(findPython(needs), [path, "--check"], { stdio: "inherit" }).status !== 0 || failed;
  }
  process.exit(failed ? 1 : 0);
}

if (options.jsonl) writeFileSync(options.jsonl, "");
const common = ["-m", options["num-features"], "--samples", options.samples, "--seconds", options.seconds];
const lines = [];
for (const threads of options.threads.split(",")) {
  for (const peer of installed) {
    const features = options.features.split(",").filter((name) => peer.features.includes(name)).join(",");
    const take = (...flags) => {
      console.error(`${peer.name}: ${flags.join(" ")}`);
      const measured = measurePeer(peer, ["--threads", threads, ...common, ...flags]);
      lines.push(...measured);
      if (options.jsonl) appendFileSync(options.jsonl, measured.map((line) => `${JSON.stringify(line)}\n`).join(""));
    };
    const product = peer.script.includes("_fused") ? ["--sgemm"] : [];
    if (features) {
      take("--mode", "bidirectional", "--features", features, "-L", options.lengths, ...product);
      if (peer.causal) {
        const most = peer.causalRows ?? Infinity;
        const rows = [...new Set(options.lengths.split(",").map((L) => Math.min(Number(L), most)))];
        take("--mode", "causal", "--features", features, "-L", rows.join(","));
      }
    }
    if (peer.features.includes("softmax") && options.exact) {
      take("--mode", "bidirectional", "--features", "softmax", "-L", options.exact);
    }
  }
}
const head = [
  "peer",
  "version",
  "BLAS",
  "threads",
  "mode",
  "features",
  "L",
  "tokens/s",
  "GFLOP/s",
  "samples",
  "faults/run",
];
const rows = lines.map((line) => [
  ...[line.peer, line.version, line.blas ?? "", line.threads, line.mode],
  line.features ? line.numFeatures ? `${line.features} r=${line.numFeatures}` : line.features : "",
  ...[whole(line.L), line.tokensPerSecond ? whole(line.tokensPerSecond) : "", line.gflops.toFixed(1)],
  ...[line.seconds.length, whole(line.pageFaultsPerRun)],
]);
if (rows.length > 0) {
  console.log(`${os.cpus()[0]?.model}, ${os.availableParallelism()} cores; medians; H = 8, d = 64\n`);
  console.log(markdown(head, rows));
}
process.exitCode = rows.length > 0 ? 0 : 1;
