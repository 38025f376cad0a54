#!/usr/bin/env bun
/** The command line: the only file that touches `process`. */
import process from "node:process";
import { isatty } from "node:tty";
import { temporaries, writeStandard } from "./src/bytes.ts";
import type { Terminal } from "./src/commands/command.ts";
import { explain, main } from "./src/commands/main.ts";

const abort = new AbortController();
const quit = (code: number): never => {
  temporaries.removeAll();
  process.exit(code);
};

process.on("SIGINT", () => {
  if (abort.signal.aborted) quit(130);
  writeStandard(2, "\nstopping … (Ctrl-C again to force)\n");
  abort.abort(new Error("interrupted"));
});
process.on("SIGTERM", () => quit(143));
process.on("uncaughtException", (error) => quit(explain(error, terminal)));

const versions = process.versions as Record<string, string | undefined>;
const terminal: Terminal = {
  env: process.env,
  cwd: process.cwd(),
  // Not process.stdin and process.stdout: making those streams costs 45 ms on Bun.
  stdinTTY: isatty(0),
  stdoutTTY: isatty(1),
  stderrTTY: isatty(2),
  get columns() {
    return isatty(1) || isatty(2) ? process.stdout.columns || process.stderr.columns || 100 : 100;
  },
  runtime: versions.bun ? `Bun ${versions.bun}` : versions.deno ? `Deno ${versions.deno}` : `Node ${versions.node}`,
  out: (text) => writeStandard(1, text),
  err: (text) => writeStandard(2, text),
  peakBytes: () => process.resourceUsage().maxRSS * 1024,
  signal: abort.signal,
};

quit(await main(process.argv.slice(2), terminal));
