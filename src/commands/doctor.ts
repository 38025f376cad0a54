/** `performer doctor`: versions, drivers, memory, configuration and where each value came from. */
import type { Command } from "./command.ts";
import { COMMON_FLAGS } from "./flags.ts";

export const doctor: Command = {
  name: "doctor",
  summary: "versions, drivers, threads, memory, configuration and where each value came from",
  arguments: [],
  flags: COMMON_FLAGS,
  examples: ["performer doctor", "performer doctor --json"],
  async run({ flags }, terminal) {
    const { examine } = await import("./doctor_run.ts");
    const sections = await examine(terminal);
    if (flags.json) {
      terminal.out(JSON.stringify({ schema: "performer-doctor/1", ...sections }, null, 2) + "\n");
      return 0;
    }
    for (const [section, values] of Object.entries(sections)) {
      terminal.out(`${section}\n`);
      for (const [name, value] of Object.entries(values)) terminal.out(`  ${name.padEnd(16)} ${value}\n`);
    }
    return 0;
  },
};
