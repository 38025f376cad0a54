/** Gathers what `doctor` shows. */
import * as os from "node:os";
import { assets } from "../assets.ts";
import { testBackends } from "../backends/self_test.ts";
import { bytesText } from "../words.ts";
import { VERSION } from "../version.ts";
import type { Terminal } from "./command.ts";
import { configurationFor } from "./config.ts";
import { speedsFile } from "./flags.ts";
import { COMMANDS } from "./mod.ts";

export type Sections = Record<string, Record<string, string>>;

export async function examine(terminal: Terminal): Promise<Sections> {
  const { auto, results } = await testBackends({ speeds: speedsFile(terminal.env) });
  const configuration: Record<string, string> = {};
  for (const { path, label, found } of await configurationFor(terminal).files()) {
    configuration[label] = found ? path : `${path} (none)`;
  }
  for (const flag of COMMANDS[0].flags) {
    const { value, source } = await configurationFor(terminal).lookup(flag) ??
      { value: flag.default, source: "default" };
    if (value !== undefined) configuration[flag.name] = `${value} (${source})`;
  }
  return {
    performer: { version: VERSION, shipped: assets.form, runtime: terminal.runtime },
    machine: {
      system: `${os.type()} ${os.release()} ${os.arch()}`,
      processor: os.cpus()[0]?.model ?? "unknown",
      threads: String(os.availableParallelism()),
      memory: `${bytesText(os.totalmem())}, ${bytesText(os.freemem())} free`,
      temporary: os.tmpdir(),
    },
    backends: { ...Object.fromEntries(results.map(({ name, status, detail }) => [name, `${status} ${detail}`])), auto },
    configuration,
  };
}
