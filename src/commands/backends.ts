/** `performer backends`: opens each backend, runs a golden case on it, says PASS or why not. */
import type { Command } from "./command.ts";
import { COMMON_FLAGS, PLAIN_FORMAT_FLAG, speedsFile, THREADS_FLAG } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-backends/1";

export const backends: Command = {
  name: "backends",
  summary: "opens each backend, runs a golden case on it, times it, and says which one auto takes",
  arguments: [],
  flags: [THREADS_FLAG, PLAIN_FORMAT_FLAG, ...COMMON_FLAGS],
  examples: ["performer backends"],
  async run(invocation, terminal) {
    const { flags } = invocation;
    const format = formatOf(invocation);
    const lines = linesOf(invocation, terminal, SCHEMA);
    const { testBackends } = await import("../backends/self_test.ts");
    const { useColor } = await import("./progress.ts");
    const { auto, results } = await testBackends({
      threads: flags.threads as number | undefined,
      speeds: speedsFile(terminal.env),
    }, (result) => lines?.say("backend", result));
    const failed = results.some((result) => result.status === "FAIL");
    const report = { schema: SCHEMA, command: "backends", auto, backends: results };
    terminal.found?.(report);
    if (lines) lines.end(report);
    else if (format === "json") terminal.out(jsonText(report));
    else if (!flags.quiet) {
      const color = useColor(terminal, flags);
      const codes = { PASS: 32, FAIL: 31, refused: 33 };
      for (const { name, status, detail } of results) {
        const shown = color ? `\x1b[${codes[status]}m${status}\x1b[39m` : status;
        terminal.out(`  ${name.padEnd(10)} ${shown}${" ".repeat(8 - status.length)} ${detail}\n`);
      }
      terminal.out(`auto takes ${auto}\n`);
    }
    return failed ? 1 : 0;
  },
};
