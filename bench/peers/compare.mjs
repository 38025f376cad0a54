/**
 * `performer bench` and the peers in one session, alternating, so that both see the same machine: ratios, not only figures.
 *
 *     node bench/peers/compare.mjs                                   # wasm on Bun against every peer installed
 *     node bench/peers/compare.mjs --scenarios positive --rounds 5 --save NAME     # also bench/results/NAME.json
 *     node bench/peers/compare.mjs --scenarios equal-error --equal-features 128
 *
 * A ratio is ours / peer in tokens/s (above 1: ours is faster), taken within each round; the median of the rounds is printed with their
 * range. The order of the contenders turns around from one round to the next.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import * as os from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import process from "node:process";
import { installedPeers, markdown, measurePeer, medianOf, whole } from "./peers.mjs";

const { values: options } = parseArgs({
  options: {
    backend: { type: "string", default: "wasm" },
    runtime: { type: "string", default: "bun" },
    lengths: { type: "string", short: "L", default: "16384" },
    exact: { type: "string", default: "4096" },
    threads: { type: "string", default: String(os.availableParallelism()) },
    "num-features": { type: "string", short: "m", default: "256" },
    "equal-features": { type: "string", default: "128" },
    scenarios: { type: "string", default: "positive,hyperbolic,causal,exact,equal-error" },
    peers: { type: "string" },
    rounds: { type: "string", default: "3" },
    samples: { type: "string", default: "10" },
    seconds: { type: "string", default: "3" },
    save: { type: "string" },
  },
});
const root = fileURLToPath(new URL("../../", import.meta.url));
const L = Number(options.lengths), r = Number(options["num-features"]), equal = Number(options["equal-features"]);
const point = (features, projection, mode = "bidirectional", rows = L, m = r) => ({
  features,
  projection,
  mode,
  rows,
  m,
});

/** What is compared with what; every one of `ours` with every one of `theirs`. */
const SCENARIOS = {
  positive: { ours: [point("positive", "orthogonal")], theirs: [point("positive")] },
  hyperbolic: {
    ours: [point("hyperbolic", "orthogonal"), point("hyperbolic", "hadamard")],
    theirs: [point("hyperbolic")],
  },
  causal: { ours: [point("positive", "orthogonal", "causal")], theirs: [point("positive", "", "causal")] },
  exact: {
    ours: [point("softmax", "orthogonal", "bidirectional", Number(options.exact))],
    theirs: [point("softmax", "", "bidirectional", Number(options.exact))],
  },
  // By equal_error.py 128 hyperbolic features err no more than 256 positive ones at the default spread of 0.25; a peer can use hyperbolic features as well, so that is measured too.
  "equal-error": {
    ours: [point("hyperbolic", "hadamard", "bidirectional", L, equal)],
    theirs: [point("positive"), point("hyperbolic", "", "bidirectional", L, equal)],
  },
};

/** One measurement of this project: a process of its own, as for the peers. */
function measureOurs({ features, projection, mode, rows, m }) {
  const run = options.runtime === "deno"
    ? [`${root}node_modules/.bin/deno`, "run", "-A", `${root}cli.ts`]
    : [`${root}node_modules/.bin/bun`, `${root}cli.ts`];
  const { status, stdout } = spawnSync(run[0], [
    ...run.slice(1),
    ...["bench", "--backend", options.backend, "--features", features, "-m", m, "-L", rows, "--mode", mode].map(String),
    ...(features === "softmax" ? [] : ["--projection", projection]),
    ...["--threads", options.threads, "--samples", options.samples, "--seconds", options.seconds, "--json"],
  ], { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], maxBuffer: 2 ** 26 });
  const report = stdout ? JSON.parse(stdout) : { refused: [{ reason: `exit status ${status}` }] };
  const result = report.results?.[0];
  if (!result) throw new Error(`performer bench measured nothing: ${JSON.stringify(report.refused ?? report)}`);
  return { ...result, runtime: report.machine?.runtime };
}

function measureTheirs(peer, { features, mode, rows, m }) {
  const flags = ["--threads", options.threads, "--samples", options.samples, "--seconds", options.seconds];
  return measurePeer(peer, [...flags, "--features", features, "--mode", mode, "-L", rows, "-m", m])[0];
}

const nameOf = (name, { features, projection, m }) =>
  `${name} ${features}${features === "softmax" ? "" : ` r=${m}`}${projection === "hadamard" ? " hadamard" : ""}`;

const { installed, missing } = installedPeers();
for (const line of missing) console.error(line);
const wanted = options.peers?.split(",");
const peers = installed.filter(({ name }) => !wanted || wanted.includes(name));
const results = [];
const rows = [];
for (const scenario of options.scenarios.split(",")) {
  if (!SCENARIOS[scenario]) {
    console.error(`Unknown scenario ${scenario}, expected ${Object.keys(SCENARIOS).join(", ")}`);
    process.exit(2);
  }
  const { ours, theirs } = SCENARIOS[scenario];
  const contenders = ours.map((what) => ({ ours: true, what, take: () => measureOurs(what) }));
  for (const what of theirs) {
    for (const peer of peers) {
      if (!peer.features.includes(what.features)) continue;
      // What takes minutes per sample is left out: run.mjs measures it over fewer rows.
      if (what.mode === "causal" && (!peer.causal || what.rows > (peer.causalRows ?? Infinity))) continue;
      contenders.push({ ours: false, what, peer, take: () => measureTheirs(peer, what) });
    }
  }
  for (const contender of contenders) {
    contender.name = nameOf(contender.ours ? "performer" : contender.peer.name, contender.what);
    contender.lines = [];
  }
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const contender of round % 2 ? [...contenders].reverse() : contenders) {
      console.error(`${scenario}, round ${round + 1}: ${contender.name}`);
      contender.lines.push(contender.take());
    }
  }
  const speeds = (contender) => contender.lines.map(({ tokensPerSecond }) => tokensPerSecond);
  for (const { name, what, lines } of contenders) results.push({ scenario, name, ...what, rounds: lines });
  for (const our of contenders.filter((contender) => contender.ours)) {
    for (const their of contenders.filter((contender) => !contender.ours)) {
      const ratios = speeds(our).map((speed, i) => speed / speeds(their)[i]);
      rows.push([
        ...[scenario, whole(our.what.rows), our.name, whole(medianOf(speeds(our)))],
        ...[their.name, whole(medianOf(speeds(their))), medianOf(ratios).toFixed(2)],
        `${Math.min(...ratios).toFixed(2)}–${Math.max(...ratios).toFixed(2)}`,
      ]);
    }
  }
}
const table = markdown(
  ["scenario", "L", "ours", "tokens/s", "peer", "tokens/s", "ours / peer", "range"],
  rows,
);
console.log(
  `${
    os.cpus()[0]?.model
  }, ${options.threads} threads, ${options.backend} on ${options.runtime}, ${options.rounds} rounds\n\n${table}`,
);
if (options.save) {
  const path = new URL(`../results/${options.save}.json`, import.meta.url);
  const machine = { processor: os.cpus()[0]?.model, threads: os.availableParallelism(), memory: os.totalmem() };
  const { save: _, ...settings } = options;
  const report = { schema: "performer-peers/1", date: new Date().toISOString(), machine, settings, results };
  writeFileSync(path, `${JSON.stringify(report, null, 1)}\n`);
  console.error(`saved ${fileURLToPath(path)}`);
}
