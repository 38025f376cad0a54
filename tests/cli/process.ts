/** Runs the real command line as a process, on Bun and on Deno. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Terminal } from "../../src/commands/command.ts";
import { main } from "../../src/commands/main.ts";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** How each runtime is started. */
export const RUNTIMES: Readonly<Record<string, readonly string[]>> = {
  bun: [join(ROOT, "node_modules/.bin/bun")],
  deno: [join(ROOT, "node_modules/.bin/deno"), "run", "-A", "--quiet", "--config", join(ROOT, "deno.json")],
};

export interface Outcome {
  readonly code: number | null;
  /** Of a process that did not exit but was ended. */
  readonly signal: string | null;
  readonly out: Uint8Array;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProcessOptions {
  readonly runtime?: string;
  readonly cwd?: string;
  readonly env?: Record<string, string>;
  /** What stdin holds; null leaves it open for `during`. */
  readonly input?: Uint8Array | null;
  /** Called with the running process, e.g. to send signals. */
  readonly during?: (child: ReturnType<typeof spawn>) => void;
}

/** Runs `performer ARGS`. Configuration of the machine is kept out. */
export function performer(args: readonly string[], options: ProcessOptions = {}): Promise<Outcome> {
  const env = { PATH: process.env.PATH!, HOME: tmpdir(), NO_COLOR: "1", ...options.env };
  const command = [...RUNTIMES[options.runtime ?? "bun"], join(ROOT, "cli.ts"), ...args];
  return runProcess(command, { ...options, cwd: options.cwd ?? ROOT, env });
}

/** Runs a command in exactly this environment. */
export function runProcess(
  [command, ...args]: readonly string[],
  { cwd, env, input, during }: Omit<ProcessOptions, "runtime">,
): Promise<Outcome> {
  const child = spawn(command, args, { cwd, env });
  const chunks: Uint8Array[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Uint8Array) => chunks.push(chunk));
  child.stderr.on("data", (chunk: Uint8Array) => stderr += new TextDecoder().decode(chunk));
  child.stdin.on("error", () => {});
  if (input !== null) child.stdin.end(input ?? new Uint8Array());
  during?.(child);
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      const out = new Uint8Array(Buffer.concat(chunks));
      resolve({ code, signal, out, stdout: new TextDecoder().decode(out), stderr });
    });
  });
}

/** Runs `performer ARGS` inside this process, which saves the start of one: no pipes, and `-o` only to files. `world` is added to its terminal. */
export async function inside(
  args: readonly string[],
  world: Partial<Terminal> = {},
): Promise<Pick<Outcome, "code" | "stdout" | "stderr">> {
  let stdout = "", stderr = "";
  const code = await main(args, {
    env: { HOME: tmpdir(), NO_COLOR: "1" },
    cwd: ROOT,
    stdinTTY: false,
    stdoutTTY: false,
    stderrTTY: false,
    columns: 100,
    runtime: "test",
    out: (text) => void (stdout += text),
    err: (text) => void (stderr += text),
    peakBytes: () => 0,
    signal: new AbortController().signal,
    ...world,
  });
  return { code, stdout, stderr };
}

/** A folder for one test file, removed by `remove`. */
export function scratch(): { path: (name: string) => string; remove: () => void } {
  const folder = mkdtempSync(join(tmpdir(), "performer-test-"));
  return { path: (name) => join(folder, name), remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** A float32 .npy of the given shape; `value(i)` gives element i. */
export function npyBytes(shape: readonly number[], value: (i: number) => number): Uint8Array {
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`.padEnd(117) + "\n";
  const count = shape.reduce((a, b) => a * b, 1);
  const bytes = new Uint8Array(128 + 4 * count);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, 118, 0]);
  bytes.set(new TextEncoder().encode(dict), 10);
  bytes.set(new Uint8Array(Float32Array.from({ length: count }, (_, i) => value(i)).buffer), 128);
  return bytes;
}

/** Element type, shape and numbers of a .npy this program wrote. */
export function readNpyBytes(bytes: Uint8Array): { descr: string; shape: number[]; data: number[] } {
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint16(8, true);
  const header = new TextDecoder().decode(bytes.subarray(10, 10 + length));
  const descr = /'descr': '([^']+)'/.exec(header)![1];
  const shape = /\(([^)]*)\)/.exec(header)![1].split(",").filter((part) => part.trim() !== "").map(Number);
  const body = bytes.slice(10 + length).buffer;
  const data = Array.from(
    descr === "<f8" ? new Float64Array(body) : descr === "<f4" ? new Float32Array(body) : new Float16Array(body),
  );
  return { descr, shape, data };
}

/** Deterministic, well mixed numbers in [−1, 1) (murmur3's finaliser). */
export function wave(i: number): number {
  let x = Math.imul(i + 1, 0x9e3779b1);
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return ((x ^ (x >>> 16)) >>> 0) / 2 ** 31 - 1;
}
