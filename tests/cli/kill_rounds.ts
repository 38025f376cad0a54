/** Rounds of `attend --resume` that is killed at random moments until it comes to its end: what the test and scripts/kill_rounds.ts run. */
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { Checkpoint } from "../../src/run_journal.ts";
import { unpack } from "../../src/packed.ts";
import { npyBytes, type Outcome, performer, RUNTIMES, scratch, wave } from "./process.ts";

/** What runs; names of files are those of `makeInputs`. */
export const SETTINGS: Readonly<Record<string, readonly string[]>> = {
  bidirectional: ["x.npy", "--heads", "4"],
  causal: ["x.npy", "--heads", "4", "--causal"],
  decay: ["x.npy", "--heads", "4", "--causal", "--decay", "0.01,0.02,0.03,0.04"],
  masked: ["x.npy", "--heads", "2", "--mask", "mask.npy"],
  "heads first, npz": ["heads.npy", "-m", "64"],
  fitted: ["x.npy", "--heads", "4", "--features", "hyp-sderf", "-m", "128"],
  "shrunk, f16": ["x.npy", "--heads", "4", "--causal", "--shrink", "0.7", "--output-dtype", "f16"],
  "near and far": ["x.npy", "--heads", "4", "--window", "64", "--heavy", "8", "--far", "taylor1"],
  "clusters, causal": ["x.npy", "--heads", "4", "--window", "32", "--far", "clusters:16", "--causal"],
  scalar: ["short.npy", "--heads", "2", "-m", "64", "--backend", "scalar"],
  softmax: ["short.npy", "--heads", "2", "--features", "softmax", "--tile", "256"],
};

/** What a kill found, by the journal that it left. */
export const MOMENTS = ["no journal", "no checkpoint", "keys", "rows", "all rows", "named"] as const;
export type Moment = typeof MOMENTS[number];

export interface Rounds {
  rounds: number;
  kills: number;
  /** Runs that were over before they could be killed. */
  finished: number;
  readonly moments: Record<Moment, number>;
}

/** What a run that nobody ends makes. */
interface Undisturbed {
  readonly bytes: Uint8Array;
  readonly rows: number;
  readonly report: string;
  readonly milliseconds: number;
}

/** Makes the inputs in a folder. */
export function makeInputs(path: (name: string) => string, rows = 16_000): void {
  writeFileSync(path("x.npy"), npyBytes([rows, 64], (i) => 0.6 * wave(i)));
  writeFileSync(path("heads.npy"), npyBytes([4, rows, 16], (i) => 0.6 * wave(i)));
  writeFileSync(path("short.npy"), npyBytes([rows / 4, 64], (i) => 0.6 * wave(i)));
  writeFileSync(path("mask.npy"), npyBytes([rows], (i) => i % 7 === 3 ? 0 : 1));
}

/** Numbers in [0, 1) from a seed, so that a round can be had again as far as clocks allow. */
function random(seed: number): () => number {
  let at = seed * 1_000_003;
  return () => (wave(at++) + 1) / 2;
}

/** Runs rounds of settings in turn on each runtime; throws at the first output or report that is not that of an undisturbed run. */
export async function killRounds(
  rounds: number,
  { seed = 1, settings = Object.keys(SETTINGS), runtimes = Object.keys(RUNTIMES), told = (_: string) => {} } = {},
): Promise<Rounds> {
  const { path, remove } = scratch();
  const next = random(seed);
  const found: Rounds = {
    rounds: 0,
    kills: 0,
    finished: 0,
    moments: Object.fromEntries(MOMENTS.map((moment) => [moment, 0])) as Record<Moment, number>,
  };
  const undisturbed = new Map<string, Undisturbed>();
  try {
    makeInputs(path);
    for (let round = 0; round < rounds; round++) {
      const name = settings[round % settings.length];
      const runtime = runtimes[Math.floor(round / settings.length) % runtimes.length];
      const line = (out: string) => {
        const files = SETTINGS[name].map((word) => word.endsWith(".npy") ? path(word) : word);
        const backend = files.includes("--backend") ? [] : ["--backend", "wasm"];
        return ["attend", ...files, ...backend, "--check", "64", "-o", path(out), "--json"];
      };
      const suffix = name.endsWith("npz") ? "npz" : "npy";
      const of = `${name} on ${runtime}`;
      let whole = undisturbed.get(of);
      if (!whole) {
        const before = performance.now();
        const { stdout, code, stderr } = await performer(line(`whole.${suffix}`), { runtime });
        if (code !== 0) throw new Error(stderr);
        const bytes = new Uint8Array(readFileSync(path(`whole.${suffix}`)));
        const { rows } = JSON.parse(stdout).input;
        whole = { bytes, rows, report: lasting(stdout), milliseconds: performance.now() - before };
        undisturbed.set(of, whole);
      }
      const out = `out.${suffix}`;
      const args = [...line(out), "--resume", "--checkpoint-seconds", "0.01"];
      let last: Outcome | null = null;
      for (let kills = 1 + Math.floor(3 * next()); kills > 0 && !last; kills--) {
        const begun = next() < 0.8; // and the start is over
        const wait = next() * whole.milliseconds * (begun ? 0.6 : 1);
        const outcome = await killed(args, runtime, path(`${out}.journal`), wait, begun);
        if (outcome.signal === "SIGKILL") {
          found.kills++;
          found.moments[momentOf(path(out), whole)]++;
        } else [last, found.finished] = [outcome, found.finished + 1];
      }
      last ??= await performer(args, { runtime });
      if (last.code !== 0) throw new Error(`${of}: exit code ${last.code}: ${last.stderr}`);
      requireEqual(new Uint8Array(readFileSync(path(out))), whole.bytes, of);
      if (lasting(last.stdout) !== whole.report) {
        throw new Error(`${of}: report\n${last.stdout}\nexpected\n${whole.report}`);
      }
      for (const left of ["partial", "journal", "journal.next"]) {
        if (existsSync(path(`${out}.${left}`))) throw new Error(`${of}: ${out}.${left} was left`);
      }
      rmSync(path(out));
      found.rounds++;
      told(`${of}: ${JSON.stringify(found)}`);
    }
  } finally {
    remove();
  }
  return found;
}

/** Runs a command line and kills it after so many milliseconds, `begun`: counted from when its journal is there or has changed. */
async function killed(
  args: readonly string[],
  runtime: string,
  journal: string,
  milliseconds: number,
  begun: boolean,
): Promise<Outcome> {
  const changed = () => statSync(journal, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const before = changed();
  return await performer(args, {
    runtime,
    during: (child) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const kill = () => void (timer = setTimeout(() => child.kill("SIGKILL"), milliseconds));
      const looking = setInterval(() => {
        if (begun && changed() === before) return;
        clearInterval(looking);
        kill();
      }, 2);
      child.on("close", () => {
        clearInterval(looking);
        clearTimeout(timer);
      });
    },
  });
}

/** What a kill left; throws where the output has its name and is not the whole one. */
function momentOf(out: string, { bytes, rows }: Undisturbed): Moment {
  const named = existsSync(out);
  if (named) requireEqual(new Uint8Array(readFileSync(out)), bytes, "the output that a kill left");
  if (!existsSync(`${out}.journal`)) return "no journal";
  const { checkpoint } = unpack(new Uint8Array(readFileSync(`${out}.journal`)), "journal") as {
    checkpoint: Checkpoint | null;
  };
  if (named) return "named";
  if (!checkpoint) return "no checkpoint";
  if (checkpoint.rows === rows) return "all rows";
  return checkpoint.rows > 0 ? "rows" : "keys";
}

function requireEqual(bytes: Uint8Array, whole: Uint8Array, what: string): void {
  if (Buffer.compare(bytes, whole) === 0) return;
  const at = bytes.findIndex((byte, i) => byte !== whole[i]);
  throw new Error(`${what}: ${bytes.length} bytes, expected ${whole.length}; the first that differs is ${at}`);
}

/** A report without what differs between any two runs: times, memory, the file's name, and that it was resumed. */
function lasting(text: string): string {
  const report = JSON.parse(text);
  for (const key of ["seconds", "tokensPerSecond", "gflopsPerSecond", "peakBytes", "resumed"]) delete report[key];
  delete report.output.path;
  return JSON.stringify(report);
}
