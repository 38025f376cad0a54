#!/usr/bin/env bun
/** The command line: the only file that touches `process`. */
import process from "node:process";
import { peakResident, temporaries, writeStandard } from "./src/bytes.ts";
import type { Console, Terminal } from "./src/commands/command.ts";
import { explain, main } from "./src/commands/main.ts";

const abort = new AbortController();
const quit = (code: number): never => {
  temporaries.removeAll();
  process.exit(code);
};

/** At once, after a word on what is kept. */
const leave = (code: number): never => {
  const parting = temporaries.parting?.();
  if (parting) writeStandard(2, `${parting}\n`);
  return quit(code);
};

/** node:tty is loaded when it is first asked: it costs Bun 20 ms, process.stdout even more. */
function isTerminal(fd: number): boolean {
  return process.getBuiltinModule("node:tty").isatty(fd);
}

process.on("SIGINT", () => {
  if (abort.signal.aborted) leave(130);
  writeStandard(2, "\nstopping … (Ctrl-C again to force)\n");
  abort.abort(new Error("interrupted"));
});
process.on("SIGTERM", () => leave(143));
process.on("uncaughtException", (error) => quit(explain(error, terminal)));

const suspend = () => void process.kill(process.pid, "SIGTSTP");

/** A person at the terminal, for the session of `repl`. */
const person = (): Console | null =>
  isTerminal(0) && isTerminal(1) ? { input: process.stdin, output: process.stdout, suspend } : null;

const versions = process.versions as Record<string, string | undefined>;
const terminal: Terminal = {
  env: process.env,
  cwd: process.cwd(),
  get stdinTTY() {
    return isTerminal(0);
  },
  get stdoutTTY() {
    return isTerminal(1);
  },
  get stderrTTY() {
    return isTerminal(2);
  },
  get columns() {
    return isTerminal(1) || isTerminal(2) ? process.stdout.columns || process.stderr.columns || 100 : 100;
  },
  runtime: versions.bun ? `Bun ${versions.bun}` : versions.deno ? `Deno ${versions.deno}` : `Node ${versions.node}`,
  out: (text) => writeStandard(1, text),
  err: (text) => writeStandard(2, text),
  // Deno 2.5 has no resourceUsage.
  peakBytes: () =>
    peakResident() ?? (process.resourceUsage ? process.resourceUsage().maxRSS * 1024 : process.memoryUsage().rss),
  signal: abort.signal,
  get console() {
    return person();
  },
  library: () => import("./mod.ts"),
};

quit(await main(process.argv.slice(2), terminal));
