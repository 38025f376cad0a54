/** What a person sees on a real terminal (util-linux `script` makes one). */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { npyBytes, ROOT, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const hasScript = spawnSync("script", ["--version"]).status === 0;

beforeAll(() => writeFileSync(path("x.npy"), npyBytes([40_000, 32], wave)));
afterAll(remove);

function onTerminal(runtime: string, args: string, env: Record<string, string> = {}): string {
  const command = `${RUNTIMES[runtime].join(" ")} ${join(ROOT, "cli.ts")} ${args}`;
  const { PATH } = process.env;
  const options = { cwd: path("."), encoding: "utf8", env: { PATH, HOME: path("."), TERM: "xterm", ...env } } as const;
  return spawnSync("script", ["-qec", command, "/dev/null"], options).stdout;
}

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test.skipIf(!hasScript)("progress shows rows and goes away; the report is coloured (needs script)", () => {
    const screen = onTerminal(runtime, "attend x.npy --backend scalar --check 64");
    expect(screen).toMatch(/keys [\d,]+ of 40,000 \(\d+ %\)/);
    expect(screen).toContain("rows/s");
    const report = screen.slice(screen.lastIndexOf("\r\x1b[K") + 4);
    expect(report).toStartWith("\x1b[1mperformer attend x.npy");
    expect(report).not.toContain(" of 40,000");
  });

  test.skipIf(!hasScript)("NO_COLOR and TERM=dumb are honoured (needs script)", () => {
    expect(onTerminal(runtime, "attend x.npy --backend scalar --rows 0:100", { NO_COLOR: "1" })).not.toContain(
      "\x1b[1m",
    );
    expect(onTerminal(runtime, "attend x.npy --backend scalar --rows 0:100", { TERM: "dumb" })).not.toContain("\x1b[");
  });

  test.skipIf(!hasScript)("a tensor expected from the terminal is an error, not a hang (needs script)", () => {
    expect(onTerminal(runtime, "attend -")).toContain("Cannot read a tensor from the terminal");
  });
});
