/** `performer doctor`: versions, drivers, memory, configuration and where each value came from. */
import type { Command } from "./command.ts";
import { COMMON_FLAGS, PLAIN_FORMAT_FLAG } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-doctor/1";

export const doctor: Command = {
  name: "doctor",
  summary: "versions, drivers, threads, memory, configuration and where each value came from",
  arguments: [],
  flags: [PLAIN_FORMAT_FLAG, ...COMMON_FLAGS],
  examples: ["performer doctor", "performer doctor --json | jq '.settings[] | select(.source != \"default\")'"],
  async run(invocation, terminal) {
    const format = formatOf(invocation);
    const lines = linesOf(invocation, terminal, SCHEMA);
    const { examine, exceptions } = await import("./doctor_run.ts");
    const { sections, settings } = await examine(terminal);
    const report = { schema: SCHEMA, command: "doctor", ...sections, settings };
    if (lines) {
      for (const setting of settings) lines.say("setting", setting);
      lines.end(report);
    } else if (format === "json") terminal.out(jsonText(report));
    else if (!invocation.flags.quiet) terminal.out(text({ ...sections, ...exceptions(settings) }));
    return 0;
  },
};

function text(sections: Readonly<Record<string, Readonly<Record<string, string>>>>): string {
  return Object.entries(sections).map(([section, values]) => {
    const lines = Object.entries(values).map(([name, value]) => `  ${name.padEnd(18)} ${value}\n`);
    return `${section}\n${lines.join("")}`;
  }).join("");
}
