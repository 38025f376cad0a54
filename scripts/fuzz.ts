/**
 * Opens damaged, hostile and forged files by the thousand, tensors, sequences, states, plans of shards and notes of their parts, journals and
 * configuration in turn: `bun scripts/fuzz.ts [COUNT] [SEED] [FIRST] [KIND]` (10000 1 0, all kinds); on Deno `deno run -A scripts/fuzz.ts`.
 * Files are read in child processes. Exits 1 when one hung or crashed, took 2 seconds or 1 GB, was read wrongly, or refused without its name.
 */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { caseOf } from "../tests/formats/fuzz/cases.ts";
import { stopwatch } from "../tests/formats/fuzz/random.ts";

const LIMIT_MS = 2000;
/** On a machine with other work the two seconds take longer; a file that waits for nothing takes no time at all. */
const KILL_MS = 60_000;
const LIMIT_BYTES = 1e9;
/** Files of one process: its peak of memory is that of its greediest file. */
const BATCH = 100;

/** What a child says of a file, one line of JSON each: what begins, and how it ended. `ms` is the longest step. */
type Line =
  | { readonly begins: number; readonly what: string }
  | { readonly ended: number; readonly outcome: string; readonly ms: number; readonly rss: number };

async function child(folder: string, only: string, [first, end, seed]: number[]): Promise<void> {
  const say = (line: Line) => process.stdout.write(JSON.stringify(line) + "\n");
  for (let index = first; index < end; index++) {
    const { kind, what, how, file, bytes, judge } = caseOf(seed, index, { only });
    // A folder for each, so that nothing lies beside a file.
    const path = join(folder, String(index), file);
    mkdirSync(join(folder, String(index)));
    writeFileSync(path, bytes);
    let [passed, ms, outcome] = [stopwatch(), 0, ""];
    const lap = () => ms = Math.max(ms, passed());
    const step = (name: string) => {
      lap();
      say({ begins: index, what: `${kind}: ${what}, ${how}, ${name}` });
      passed = stopwatch();
    };
    try {
      outcome = `${kind}, ${how}: ${await judge(path, step)}`;
    } catch (error) {
      outcome = `BUG ${(error as Error).stack}`;
    }
    lap();
    rmSync(join(folder, String(index)), { recursive: true });
    say({ ended: index, outcome, ms, rss: process.resourceUsage().maxRSS * 1024 });
  }
}

/** What has been seen so far. */
class Tally {
  readonly outcomes = new Map<string, number>();
  readonly bugs: string[] = [];
  slowest = { ms: 0, what: "" };
  largest = { rss: 0, what: "" };

  constructor(readonly folder: string, readonly seed: number, readonly only: string) {}

  /** Reads files `first … end − 1` in one process; returns the file after the last that was read. */
  async run(first: number, end: number): Promise<number> {
    let [now, what, done, peak] = [first, "", false, 0];
    const ended = await watched([this.folder, this.only, first, end, this.seed].map(String), (line) => {
      if ("begins" in line) {
        [now, done, what] = [line.begins, false, `file ${line.begins} of seed ${this.seed} (${line.what})`];
        return;
      }
      done = true;
      const { outcome, ms, rss } = line;
      if (rss > LIMIT_BYTES && peak <= LIMIT_BYTES) this.bugs.push(`${what}: ${Math.round(rss / 1e6)} MB`);
      peak = Math.max(peak, rss);
      if (rss > this.largest.rss) this.largest = { rss, what };
      if (ms > LIMIT_MS) this.bugs.push(`${what}: took ${Math.round(ms)} ms`);
      if (ms > this.slowest.ms) this.slowest = { ms, what };
      if (outcome.startsWith("BUG")) this.bugs.push(`${what}: ${outcome}`);
      else this.outcomes.set(outcome, (this.outcomes.get(outcome) ?? 0) + 1);
    });
    if (ended === null) return end;
    this.bugs.push(`${what}: ${ended}`);
    return now + (done ? 2 : 1);
  }
}

async function parent([count = 10_000, seed = 1, from = 0]: number[], only: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-"));
  const tally = new Tally(folder, seed, only);
  for (let first = from; first < from + count;) {
    first = await tally.run(first, Math.min(from + count, first + BATCH));
    if (process.stderr.isTTY) process.stderr.write(`\r${first - from} of ${count}, ${tally.bugs.length} bugs `);
  }
  rmSync(folder, { recursive: true });
  const { outcomes, bugs, slowest, largest } = tally;
  for (const [outcome, times] of [...outcomes].sort()) console.log(`${String(times).padStart(6)}  ${outcome}`);
  console.log(`slowest ${Math.round(slowest.ms)} ms: ${slowest.what}`);
  console.log(`largest process ${Math.round(largest.rss / 1e6)} MB, after ${largest.what}`);
  for (const bug of bugs) console.log(bug);
  console.log(`${count} files, ${bugs.length} bugs`);
  process.exitCode = bugs.length > 0 ? 1 : 0;
}

/** Runs a child; null when it ended well, else how it ended. A file on which it is silent too long kills it. */
function watched(args: readonly string[], heard: (line: Line) => void): Promise<string | null> {
  const runtime = "Deno" in globalThis ? ["run", "-A", "--quiet"] : [];
  const running = spawn(process.execPath, [...runtime, fileURLToPath(import.meta.url), "--child", ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let timer: ReturnType<typeof setTimeout> | undefined;
  let hung = false;
  createInterface({ input: running.stdout }).on("line", (text) => {
    const line: Line = JSON.parse(text);
    clearTimeout(timer);
    if ("begins" in line) {
      timer = setTimeout(() => {
        hung = true;
        running.kill("SIGKILL");
      }, KILL_MS);
    }
    heard(line);
  });
  return new Promise((resolve, reject) => {
    running.on("error", reject);
    running.on("close", (code, signal) => {
      clearTimeout(timer);
      resolve(code === 0 ? null : hung ? "hangs" : `the process ended with ${code ?? signal}`);
    });
  });
}

if (process.argv[2] === "--child") await child(process.argv[3], process.argv[4], process.argv.slice(5).map(Number));
else await parent(process.argv.slice(2, 5).map(Number), process.argv[5] ?? "");
