/**
 * `bun bench/scale_sim.ts [--workers LIST]`: how long a plan of shards takes on machines that nobody here has.
 *
 * The plan is the real one: the cut of src/shard/plan.ts, its ranges and the size of its states. Workers, the network and failures are a model:
 *
 * - a worker is one core; its speed is `--map` or `--apply` tokens/s, times a log-normal factor (`--spread`) of its own
 * - a task starts with `--start` seconds and reads its rows at `--link` bytes/s, or at its share of `--storage`, which all that run at the time divide;
 *   reading and computing overlap, and the slower of both counts
 * - a worker is lost after an exponential time of mean `--mtbf` hours; its shard waits `--hold` seconds and starts over on another, and a new
 *   worker takes its place after `--repair` seconds
 * - a task exits 75 with probability `--faults` at its end, and starts over
 * - merge is one task: it reads all states, `--merge` seconds each, one after the other
 *
 * Defaults of `--map`, `--apply` and `--merge` are what bench/shard.sh measured (docs/scale.md); those of the network and of failures are assumptions.
 *
 * `--check`: tasks are computed as well, over few rows per shard, in the order and with the failures of the simulation; the sum of their states must
 * have the same bytes as in the order of shards, and be that of one pass to 1e-12.
 */
import { parseArgs } from "node:util";
import { type Attention, flopCount, parametersFor, type Sizes } from "../src/attention.ts";
import { openFirst, parseBackendList } from "../src/backends/mod.ts";
import { gaussianData } from "../src/figures/trials.ts";
import { RandomStream } from "../src/random.ts";
import { mapRows } from "../src/shard/compute.ts";
import { cutShards, rangesOfShard, stateBytes } from "../src/shard/plan.ts";
import { emptyState, mergeInto, type State } from "../src/state.ts";
import { bytesText, count, duration } from "../src/words.ts";

const { values: flags } = parseArgs({
  options: {
    workers: { type: "string", default: "1,16,256,4096" },
    tokens: { type: "string", default: "1e9" },
    heads: { type: "string", default: "8" },
    width: { type: "string", default: "64" },
    features: { type: "string", short: "m", default: "256" },
    bytes: { type: "string", default: "4" },
    shards: { type: "string", default: "1" },
    map: { type: "string", default: "37849" },
    apply: { type: "string", default: "37806" },
    start: { type: "string", default: "0.5" },
    merge: { type: "string", default: "0.0127" },
    link: { type: "string", default: "1e9" },
    storage: { type: "string", default: "2e11" },
    spread: { type: "string", default: "0.05" },
    mtbf: { type: "string", default: "2000" },
    hold: { type: "string", default: "120" },
    repair: { type: "string", default: "600" },
    faults: { type: "string", default: "0.001" },
    seed: { type: "string", default: "0" },
    check: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
  },
});
const number = (name: keyof typeof flags): number => {
  const value = Number(flags[name]);
  if (!Number.isFinite(value) || value < 0) {
    throw new Error(`--${name} ${flags[name]}: expected a number of at least 0`);
  }
  return value;
};

const [tokens, heads, width] = [number("tokens"), number("heads"), number("width")];
const attention: Attention = {
  features: "hyperbolic",
  numFeatures: number("features"),
  projection: "orthogonal",
  norms: "chi",
  seed: number("seed"),
  causal: false,
  scale: null,
  given: null,
  compat: "exact",
};
const sizes: Sizes = { queryRows: tokens, keyRows: tokens, heads, kvHeads: heads, headDim: width, valueDim: width };
const rowBytes = heads * width * number("bytes");
const oneState = stateBytes(heads, attention.numFeatures, width);
const flops = flopCount(attention, sizes, parametersFor(attention, { ...sizes, queryRows: 1, keyRows: 1 }));

/** A task to be done: seconds of one core at speed 1, bytes to be read and written. */
interface Task {
  readonly id: number;
  readonly seconds: number;
  readonly bytes: number;
}

interface Phase {
  readonly seconds: number;
  /** Ids in the order their results appeared. */
  readonly order: readonly number[];
  readonly attempts: number;
  readonly lost: number;
  readonly faults: number;
  /** Seconds that workers computed for nothing. */
  readonly wasted: number;
}

/** Numbers of the model, one stream for each purpose. */
const random = (...purpose: number[]) => {
  const stream = new RandomStream(number("seed"), 0x5ca1e, ...purpose);
  const next = () => stream.uniform();
  return { next, exponential: (mean: number) => -mean * Math.log(1 - next()), normal: () => stream.normals(1)[0] };
};

/** Workers take tasks in the order of shards, those that came back first, until all are done. */
function simulate(tasks: readonly Task[], workers: number, purpose: number): Phase {
  const draw = random(workers, purpose);
  const speeds = Array.from({ length: workers }, () => Math.exp(number("spread") * draw.normal()));
  const waiting = [...tasks].reverse();
  const held: { task: Task; at: number }[] = [];
  /** When workers are free, the earliest first (a heap would do the same faster). */
  const events: { at: number; worker: number; task: Task | null; lost: boolean; started: number }[] = [];
  const push = (event: typeof events[number]) => {
    let [low, high] = [0, events.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (events[middle].at > event.at) low = middle + 1;
      else high = middle;
    }
    events.splice(low, 0, event);
  };
  const idle: number[] = [];
  let running = 0, attempts = 0, lost = 0, faults = 0, wasted = 0, now = 0;
  const order: number[] = [];
  const start = (worker: number, task: Task, together: number) => {
    running++;
    attempts++;
    const reading = task.bytes / Math.min(number("link"), number("storage") / together);
    const seconds = number("start") + Math.max(reading, task.seconds / speeds[worker]);
    const death = number("mtbf") > 0 ? draw.exponential(number("mtbf") * 3600) : Infinity;
    push({ at: now + Math.min(seconds, death), worker, task, lost: death < seconds, started: now });
  };
  const assign = () => {
    for (let i = held.length - 1; i >= 0; i--) if (held[i].at <= now) waiting.push(held.splice(i, 1)[0].task);
    const together = running + Math.min(idle.length, waiting.length);
    while (idle.length > 0 && waiting.length > 0) start(idle.pop()!, waiting.pop()!, together);
  };
  for (let worker = workers - 1; worker >= 0; worker--) idle.push(worker);
  assign();
  while (order.length < tasks.length) {
    const event = events.pop()!;
    now = event.at;
    const { task, worker } = event;
    if (task) running--;
    if (task && event.lost) {
      lost++;
      wasted += now - event.started;
      held.push({ task, at: now + number("hold") });
      push({ at: now + number("hold"), worker: -1, task: null, lost: false, started: now });
      push({ at: now + number("repair"), worker, task: null, lost: false, started: now });
    } else {
      if (task && draw.next() < number("faults")) {
        faults++;
        wasted += now - event.started;
        waiting.push(task);
      } else if (task) order.push(task.id);
      if (worker >= 0) idle.push(worker);
    }
    assign();
  }
  return { seconds: now, order, attempts, lost, faults, wasted };
}

/** Small shards, computed in the order that a simulation gave: their sum must not show it. */
async function check(order: readonly number[], shards: number): Promise<number> {
  const length = 3 * shards;
  const inputs = gaussianData({ length, headDim: 4, valueDim: 3, seed: 1, sd: 1 });
  const small = { queryRows: length, keyRows: length, heads: 1, kvHeads: 1, headDim: 4, valueDim: 3 };
  const { backend } = await openFirst(parseBackendList("scalar"));
  await using _open = backend;
  const task = { inputs, attention: { ...attention, numFeatures: 8 }, sizes: small, fit: null, backend };
  const cut = { shards: cutShards(small, shards) };
  const states = new Map<number, State>();
  for (const id of order) states.set(id, (await mapRows(task, rangesOfShard(cut, id).keys)).state);
  const sum = emptyState(1, 8, 3);
  for (let id = 0; id < shards; id++) mergeInto(sum, states.get(id)!);
  const again = emptyState(1, 8, 3);
  for (let id = 0; id < shards; id++) mergeInto(again, (await mapRows(task, rangesOfShard(cut, id).keys)).state);
  for (const part of ["c", "z", "S"] as const) {
    if (sum[part].some((value, i) => !Object.is(value, again[part][i]))) {
      throw new Error(`${part} depends on the order`);
    }
  }
  const { state: whole } = await mapRows(task, { start: 0, end: length });
  const off = sum.S.reduce(
    (most, value, i) => Math.max(most, Math.abs(value - whole.S[i]) / Math.max(1e-300, Math.abs(whole.S[i]))),
    0,
  );
  if (!(off < 1e-12 * length)) throw new Error(`the sum is off by ${off}`);
  return off;
}

const rows: Record<string, number>[] = [];
for (const workers of flags.workers.split(",").map(Number)) {
  const shards = Math.ceil(workers === 1 ? 16 : workers * number("shards"));
  const plan = { shards: cutShards(sizes, shards) };
  const tasks = (rate: number, each: (rows: number) => number) =>
    Array.from({ length: shards }, (_, id): Task => {
      const { start, end } = rangesOfShard(plan, id).keys;
      return { id, seconds: (end - start) / rate, bytes: each(end - start) };
    });
  const map = simulate(tasks(number("map"), (n) => 2 * n * rowBytes + oneState), workers, 1);
  const merge = number("start") + shards * Math.max(number("merge"), oneState / number("link"));
  const apply = simulate(tasks(number("apply"), (n) => 2 * n * rowBytes + oneState), workers, 2);
  const total = map.seconds + merge + apply.seconds;
  const ideal = (tokens / number("map") + tokens / number("apply")) / workers;
  rows.push({
    workers,
    shards,
    rowsPerShard: Math.ceil(tokens / shards),
    mapSeconds: map.seconds,
    mergeSeconds: merge,
    applySeconds: apply.seconds,
    totalSeconds: total,
    idealSeconds: ideal,
    efficiency: ideal / total,
    attempts: map.attempts + apply.attempts,
    lost: map.lost + apply.lost,
    faults: map.faults + apply.faults,
    wastedSeconds: map.wasted + apply.wasted,
    rowBytes: 4 * tokens * rowBytes,
    stateBytes: shards * oneState,
    ...(flags.check ? { checkedOff: await check(map.order, shards) } : {}),
  });
}

if (flags.json) console.log(JSON.stringify({ flags, flops, oneState, rows }, null, 2));
else {
  console.log(
    `${count(tokens)} tokens · ${heads} heads × ${width}, m = ${attention.numFeatures} · ${
      flops.toExponential(3)
    } FLOP · ` +
      `q, k, v and outputs ${bytesText(4 * tokens * rowBytes)} · a state ${bytesText(oneState)}`,
  );
  const print = (lines: readonly (readonly string[])[]) => {
    const cut = lines.map((line) => `| ${line.join(" | ")} |`);
    console.log(["", cut[0], `|${"---|".repeat(lines[0].length)}`, ...cut.slice(1)].join("\n"));
  };
  print([
    [
      "workers",
      "tokens each",
      "FLOP each",
      "k, v read each",
      "q read, outputs written each",
      "states in all",
      "compute alone",
    ],
    ...rows.map(({ workers, stateBytes, idealSeconds }) => [
      count(workers),
      count(tokens / workers),
      (flops / workers).toExponential(2),
      bytesText(2 * tokens * rowBytes / workers),
      bytesText(2 * tokens * rowBytes / workers),
      bytesText(stateBytes),
      duration(idealSeconds),
    ]),
  ]);
  print([
    ["workers", "shards", "map", "merge", "apply", "in all", "efficiency", "lost", "exit 75"],
    ...rows.map((row) => [
      count(row.workers),
      count(row.shards),
      duration(row.mapSeconds),
      duration(row.mergeSeconds),
      duration(row.applySeconds),
      duration(row.totalSeconds),
      `${(100 * row.efficiency).toFixed(0)} %`,
      count(row.lost),
      count(row.faults),
    ]),
  ]);
  if (flags.check) {
    console.log(
      `checked: sums do not depend on the order, and are one pass to ${
        Math.max(...rows.map((row) => row.checkedOff)).toExponential(1)
      }`,
    );
  }
}
