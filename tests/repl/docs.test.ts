/** Sessions shown in the documentation: every line after a prompt runs, and what is shown below it is what it says. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../cli/process.ts";
import { heardSession } from "./support.ts";

const PROMPT = "performer> ";
const pages = [
  "README.md",
  ...readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`),
];

/** Blocks of a page that show a session. */
function sessionsOf(page: string): string[][] {
  const text = readFileSync(join(ROOT, page), "utf8");
  return [...text.matchAll(/^```\w*\n([^]*?)^```$/gm)].map(([, block]) => block.trimEnd().split("\n"))
    .filter((lines) => lines.some((line) => line.startsWith(PROMPT)));
}

/** Times and speeds change from run to run. */
const steady = (line: string) => !/tokens\/s|memory|took|backend|refused/.test(line);

const shown = pages.flatMap((page) =>
  sessionsOf(page).map((lines, i) => [`${page}, session ${i + 1}`, lines] as const)
);

test("there are sessions to run", () => expect(shown.length).toBeGreaterThan(0));

describe("sessions in the documentation", () => {
  test.each(shown)("%s", async (_, lines) => {
    await using heard = heardSession({ cwd: ROOT });
    let said = "";
    for (const line of lines) {
      if (line.startsWith(PROMPT)) said = await heard.run(line.slice(PROMPT.length));
      else if (steady(line)) expect(said.split("\n")).toContain(line);
    }
  }, 60_000);
});
