/** Every command that the documentation shows runs, in a folder of small files, with the exit code that the page announces. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../cli/process.ts";
import { fencesOf, labelsOf, type ShownCommand, wordsOf } from "./fences.ts";
import { PAGES } from "./pages.ts";
import { type Ran, runShown } from "./run.ts";
import { makeWorld, type World } from "./world.ts";

let world: World;
const back = process.cwd();
/** What ran already: many pages show the same line. */
const ran = new Map<string, Ran>();

beforeAll(async () => {
  world = await makeWorld();
  process.chdir(world.folder);
});
afterAll(() => {
  process.chdir(back);
  world.remove();
});

/** Runs a command, or sets a variable for the lines after it; says what is wrong, or null. */
async function wrong(
  { text, output }: ShownCommand,
  exit: number,
  variables: Map<string, string>,
): Promise<string | null> {
  const set = /^(\w+)=(\S+)(?:\s+#.*)?$/.exec(text);
  if (set) {
    variables.set(set[1], set[2]);
    return null;
  }
  const words = wordsOf(text, variables);
  const key = words ? words.slice(words[0] === "npx" ? 1 : 0).join("\0") : `${text}\0${JSON.stringify([...variables])}`;
  const found = ran.get(key) ?? await runShown(text, variables, world);
  ran.set(key, found);
  if (found.code !== exit) return `exit ${found.code}, expected ${exit}\n${found.text}`;
  const missing = labelsOf(output).filter((label) => !`\n${found.text}`.includes(`\n  ${label} `));
  return missing.length > 0 ? `the page shows lines of ${missing.join(", ")}, it printed\n${found.text}` : null;
}

for (const page of PAGES) {
  const fences = fencesOf(readFileSync(join(ROOT, page), "utf8")).filter(({ commands }) => commands.length > 0);
  if (fences.length === 0) continue;
  describe(page, () => {
    // One shell's worth of variables: what one fence sets, later ones of the page may use.
    const variables = new Map<string, string>();
    for (const { line, commands, exit, notRun } of fences) {
      const name = `line ${line}: ${commands[0].text.replace(/\s+#.*/, "")}`;
      if (notRun !== null) {
        test.skip(`${name} (not run: ${notRun})`, () => {});
        continue;
      }
      test(name, async () => {
        for (const command of commands) {
          const found = await wrong(command, exit, variables);
          expect(found, `${page}:${command.line}: ${command.text}`).toBeNull();
        }
      });
    }
  });
}
