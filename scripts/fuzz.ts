/**
 * Opens damaged and hostile files by the thousand: `bun scripts/fuzz.ts [COUNT] [SEED] [FIRST]` (10000 1 0). Files are read in child
 * processes; one that takes 2 seconds over a file is killed. Exits 1 when a file hung, crashed, took 1 GB or was read wrongly.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { fileOf } from "../tests/formats/fuzz/files.ts";
import { judge } from "../tests/formats/fuzz/judge.ts";

const LIMIT_MS = 2000;
const LIMIT_BYTES = 1e9;
/** Files of one process: its peak of memory is that of its greediest file. */
const BATCH = 100;

/** What a child says of a file, one line of JSON each: that it begins (made already), and how it ended. */
type Line =
  | { readonly begins: number; readonly what: string }
  | { readonly ended: number; readonly outcome: string; readonly ms: number; readonly rss: number };

if (process.argv[2] === "--child") await child(process.argv.slice(3).map(Number));
else await parent(process.argv.slice(2).map(Number));

async function child([first, end, seed]: number[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "performer-fuzz-"));
  const path = join(folder, "fuzz.bin");
  const say = (line: Line) => process.stdout.write(JSON.stringify(line) + "\n");
  try {
    for (let index = first; index < end; index++) {
      const { what, how, bytes } = fileOf(seed, index);
      writeFileSync(path, bytes);
      say({ begins: index, what: `${what}, ${how}` });
      const start = performance.now();
      let outcome: string;
      try {
        const { kind } = await judge(path, bytes);
        outcome = `${how}: ${kind}`;
      } catch (error) {
        outcome = `BUG ${(error as Error).stack}`;
      }
      say({ ended: index, outcome, ms: performance.now() - start, rss: process.resourceUsage().maxRSS * 1024 });
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function parent([count = 10_000, seed = 1, from = 0]: number[]): Promise<void> {
  const outcomes = new Map<string, number>();
  const bugs: string[] = [];
  let slowest = { ms: 0, what: "" };
  let largest = { rss: 0, what: "" };
  for (let first = from; first < from + count;) {
    const end = Math.min(from + count, first + BATCH);
    let [now, what, done] = [first, "", false];
    let peak = 0;
    const ended = await watched([first, end, seed], (line) => {
      if ("begins" in line) {
        return [now, what, done] = [line.begins, `file ${line.begins} of seed ${seed} (${line.what})`, false];
      }
      done = true;
      const { outcome, ms, rss } = line;
      if (outcome.startsWith("BUG")) bugs.push(`${what}: ${outcome}`);
      else outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      if (ms > slowest.ms) slowest = { ms, what };
      if (ms > LIMIT_MS) bugs.push(`${what}: took ${Math.round(ms)} ms`);
      if (rss > LIMIT_BYTES && peak <= LIMIT_BYTES) bugs.push(`${what}: ${Math.round(rss / 1e6)} MB`);
      peak = Math.max(peak, rss);
      if (rss > largest.rss) largest = { rss, what };
    });
    if (ended !== null) bugs.push(`${what}: ${ended}`);
    first = ended === null ? end : done ? now + 2 : now + 1;
    if (process.stderr.isTTY) process.stderr.write(`\r${first - from} of ${count}, ${bugs.length} bugs `);
  }
  for (const [outcome, times] of [...outcomes].sort()) console.log(`${String(times).padStart(6)}  ${outcome}`);
  console.log(`slowest ${Math.round(slowest.ms)} ms: ${slowest.what}`);
  console.log(`largest process ${Math.round(largest.rss / 1e6)} MB, after ${largest.what}`);
  for (const bug of bugs) console.log(bug);
  console.log(`${count} files, ${bugs.length} bugs`);
  process.exitCode = bugs.length > 0 ? 1 : 0;
}

/** Runs a child; null when it ended well, else how it ended. A file on which it is silent too long kills it. */
function watched(args: readonly number[], heard: (line: Line) => void): Promise<string | null> {
  const running = spawn(process.execPath, [fileURLToPath(import.meta.url), "--child", ...args.map(String)], {
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
      }, LIMIT_MS + 500);
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
