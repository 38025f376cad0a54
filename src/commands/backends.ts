/** `performer backends`: opens each backend, runs a golden case on it, says PASS or why not. */
import type { Command } from "./command.ts";
import { COMMON_FLAGS, speedsFile, THREADS_FLAG } from "./flags.ts";

export const backends: Command = {
  name: "backends",
  summary: "opens each backend, runs a golden case on it, times it, and says which one auto takes",
  arguments: [],
  flags: [THREADS_FLAG, ...COMMON_FLAGS],
  examples: ["performer backends", "performer backends --json"],
  async run({ flags }, terminal) {
    const { testBackends } = await import("../backends/self_test.ts");
    const { useColor } = await import("./progress.ts");
    const { auto, results } = await testBackends({
      threads: flags.threads as number | undefined,
      speeds: speedsFile(terminal.env),
    });
    const failed = results.some((result) => result.status === "FAIL");
    const report = { schema: "performer-backends/1", auto, backends: results };
    terminal.found?.(report);
    if (flags.json) {
      terminal.out(JSON.stringify(report, null, 2) + "\n");
    } else if (!flags.quiet) {
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
