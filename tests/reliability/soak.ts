/** Long work in one process, watched from outside: what scripts/soak.ts runs for an hour and soak.test.ts for seconds. Linux only (/proc). */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { npyBytes, performer, readNpyBytes, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { type Sample, type Tenth, tenthsOf } from "./soak_verdicts.ts";

/** Columns of the rows that stream by, and rows after which they repeat. */
const [WIDTH, BLOCK] = [8, 16_384];
const FEATURES = ["--features", "positive", "-m", "16", "--params", "fixed", "--centre", "off"];
/** Linux counts processor time in hundredths of a second. */
const TICKS = 100;

export interface SoakOptions {
  readonly runtime?: string;
  readonly backend?: string;
  /** Seconds between two samples. */
  readonly every?: number;
  readonly told?: (words: string) => void;
}

export interface Soak {
  /** What was done, as units: rows or rounds. */
  readonly done: number;
  readonly seconds: number;
  readonly tenths: readonly Tenth[];
  /** Of a stream: relative L2 distance of outputs at the ends of tenths from what they must be. */
  readonly drift: readonly number[];
}

/** Rows of `WIDTH` float16 numbers, so many that they fill whole blocks. */
export const wholeBlocks = (rows: number): number => BLOCK * Math.max(10, Math.ceil(rows / BLOCK));

/**
 * Streams `rows` rows (`wholeBlocks`) through one causal `performer attend -`. The rows are one block again and again, so that the last row
 * of every block has one answer however many came before: that of a single block without --causal, which is what drift is measured from.
 */
export async function soakStream(rows: number, options: SoakOptions = {}): Promise<Soak> {
  const { runtime = "bun", backend = "wasm", every = 5, told = () => {} } = options;
  const block = new Uint8Array(Float16Array.from({ length: BLOCK * WIDTH }, (_, i) => 0.6 * wave(i)).buffer);
  const truth = await lastOfBlock(block, backend);
  const line = ["attend", "-", "--causal", "--check", "0", ...FEATURES, "--output-dtype", "f32"];
  const child = start(runtime, [...line, "--backend", backend, "--threads", "1", "--quiet", "-o", "-"]);
  const watch = new Watch(child, every, (samples) => told(progress(samples, rows, "rows")));
  const ends = Array.from({ length: 10 }, (_, t) => Math.floor((t + 1) * rows / BLOCK / 10) * BLOCK - 1);
  const reader = new RowReader(4 * WIDTH, ends, (count) => watch.done = count);
  child.stdout!.on("data", (chunk: Uint8Array) => reader.take(chunk));
  const feed = async () => {
    child.stdin!.write(npyHeader(rows));
    for (let at = 0; at < rows && !child.stdin!.destroyed; at += BLOCK) {
      if (!child.stdin!.write(block)) await once(child.stdin!, "drain");
    }
    child.stdin!.end();
  };
  const [samples] = await Promise.all([watch.untilExit(), feed().catch(() => {})]); // an early end is told by the exit
  if (reader.count !== rows) throw new Error(`${reader.count} rows came out of ${rows}`);
  const drift = reader.kept.map((row) => distance(row, truth));
  return { done: rows, seconds: samples.at(-1)!.seconds, tenths: tenthsOf(samples, rows), drift };
}

/** The header of an .npy of `rows` rows. */
function npyHeader(rows: number): Uint8Array {
  const text = `{'descr': '<f2', 'fortran_order': False, 'shape': (${rows}, ${WIDTH}), }`.padEnd(117) + "\n";
  const bytes = new Uint8Array(128);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]);
  bytes.set(new TextEncoder().encode(text), 10);
  return bytes;
}

/** What the last row of a block must be: it sees every row of the block equally often. */
async function lastOfBlock(block: Uint8Array, backend: string): Promise<Float32Array> {
  const { path, remove } = scratch();
  try {
    writeFileSync(path("block.npy"), Buffer.concat([npyHeader(BLOCK), block]));
    const out = path("out.npy");
    const line = ["attend", path("block.npy"), ...FEATURES, "--backend", backend, "--check", "0", "--quiet"];
    const { code, stderr } = await performer([...line, "--output-dtype", "f32", "-o", out]);
    if (code !== 0) throw new Error(stderr);
    return Float32Array.from(readNpyBytes(readFileSync(out)).data.slice(-WIDTH));
  } finally {
    remove();
  }
}

/** Counts rows of a .npy stream, and keeps a few. */
class RowReader {
  #bytes = 0;
  readonly #pending: Uint8Array;
  readonly kept: Float32Array[] = [];

  constructor(readonly rowBytes: number, readonly wanted: readonly number[], readonly told: (rows: number) => void) {
    this.#pending = new Uint8Array(rowBytes);
  }

  get count(): number {
    return Math.max(0, this.#bytes - 128) / this.rowBytes;
  }

  take(chunk: Uint8Array): void {
    const { rowBytes, wanted, kept } = this;
    const end = this.#bytes + chunk.length;
    for (let next = wanted[kept.length]; next !== undefined; next = wanted[kept.length]) {
      const from = 128 + next * rowBytes;
      const [first, last] = [Math.max(from, this.#bytes), Math.min(from + rowBytes, end)];
      if (first < last) this.#pending.set(chunk.subarray(first - this.#bytes, last - this.#bytes), first - from);
      if (end < from + rowBytes) break;
      kept.push(new Float32Array(this.#pending.slice().buffer));
    }
    this.#bytes = end;
    this.told(Math.floor(this.count));
  }
}

function distance(row: Float32Array, truth: Float32Array): number {
  let [off, all] = [0, 0];
  truth.forEach((value, i) => (off += (row[i] - value) ** 2, all += value ** 2));
  return Math.sqrt(off / all);
}

/** What one round of a session does; the last line prints one word. */
const ROUND = `
y = attend 'x.npy' -m 32 --causal --check 16;
attend 'x.npy' -m 32 -o out.npy --check 16 -q
attend 'x.npy' --window 16 --heavy 4 --far taylor1 --check 16 -q
state build 'x.npy' -m 32 --params fixed --centre off -o seen.safetensors -q
attend 'x.npy' --causal --check 0 -m 32 --params fixed --state-out later.safetensors -q
attend 'x.npy' --state-in seen.safetensors --check 0 -o out.npy -q
js await using x = await load("x.npy"); const s = await newState({ width: 16 }); await s.absorb(x, x); await s.emit(x); return s.rows
z = y * 0.5;
del z
del y
js return "round"
`;

/** Runs `rounds` rounds of attention, states and library calls in one session (`performer repl`), which is a script from a file. */
export async function soakSession(rounds: number, options: SoakOptions = {}): Promise<Soak> {
  const { runtime = "bun", backend = "wasm", every = 5, told = () => {} } = options;
  const { path, remove } = scratch();
  try {
    writeFileSync(path("x.npy"), npyBytes([512, 16], (i) => 0.6 * wave(i)));
    writeFileSync(path("script"), `:set backend ${backend}\n:set threads 1\n${ROUND.repeat(rounds)}`);
    const child = start(runtime, ["repl", "-f", path("script")], path("."));
    child.stdin!.end();
    const watch = new Watch(child, every, (samples) => told(progress(samples, rounds, "rounds")));
    child.stdout!.on(
      "data",
      (chunk: Uint8Array) => watch.done += new TextDecoder().decode(chunk).split("round").length - 1,
    );
    const samples = await watch.untilExit();
    if (watch.done !== rounds) throw new Error(`${watch.done} rounds of ${rounds} said so`);
    return { done: rounds, seconds: samples.at(-1)!.seconds, tenths: tenthsOf(samples, rounds), drift: [] };
  } finally {
    remove();
  }
}

function start(runtime: string, args: readonly string[], cwd = ROOT): ChildProcess {
  const [command, ...rest] = [...RUNTIMES[runtime], join(ROOT, "cli.ts"), ...args];
  const env = { PATH: process.env.PATH!, HOME: tmpdir(), NO_COLOR: "1" };
  return spawn(command, rest, { cwd, env, stdio: "pipe" });
}

/** Looks at a process from time to time until it ends. */
class Watch {
  /** Units done, which the owner counts. */
  done = 0;
  readonly #samples: Sample[] = [];
  readonly #began = performance.now();

  constructor(
    readonly child: ChildProcess,
    readonly every: number,
    readonly told: (samples: readonly Sample[]) => void,
  ) {}

  /** The samples, when it has ended well. Throws what it said on standard error otherwise. */
  async untilExit(): Promise<readonly Sample[]> {
    let stderr = "";
    this.child.stderr!.on("data", (chunk: Uint8Array) => stderr += new TextDecoder().decode(chunk));
    const timer = setInterval(() => this.#look(), 1000 * this.every);
    try {
      const [code] = await once(this.child, "close");
      if (code !== 0) throw new Error(`exit ${code} after ${this.done}: ${stderr}`);
    } finally {
      clearInterval(timer);
    }
    return this.#samples;
  }

  #look(): void {
    const folder = `/proc/${this.child.pid}`;
    try {
      const resident = /^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`${folder}/status`, "latin1"));
      const times = readFileSync(`${folder}/stat`, "latin1").split(") ")[1].split(" ");
      if (!resident) return; // it has ended and nobody has asked for its exit code yet
      this.#samples.push({
        done: this.done,
        seconds: (performance.now() - this.#began) / 1000,
        processorSeconds: (Number(times[11]) + Number(times[12])) / TICKS,
        residentBytes: 1024 * Number(resident[1]),
        descriptors: readdirSync(`${folder}/fd`).length,
      });
      this.told(this.#samples);
    } catch {
      // it ended between two looks
    }
  }
}

function progress(samples: readonly Sample[], total: number, unit: string): string {
  const { done, seconds, residentBytes, descriptors } = samples.at(-1)!;
  const rate = done / seconds;
  const left = rate > 0 ? `${Math.round((total - done) / rate)} s left` : "";
  return `${done.toLocaleString("en")} ${unit} · ${Math.round(seconds)} s · ${
    Math.round(rate).toLocaleString("en")
  }/s · ` +
    `${(residentBytes / 1e6).toFixed(1)} MB · ${descriptors} descriptors · ${left}`;
}
