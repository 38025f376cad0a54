/** The pages themselves: made ones are what the table makes, links lead somewhere, and no command hides from the test that runs them. */
import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { commandPages, withCommandList } from "../../scripts/command_pages.ts";
import { COMMANDS } from "../../src/commands/mod.ts";
import { ROOT } from "../cli/process.ts";
import { fencesOf, labelsOf, wordsOf } from "./fences.ts";
import { PAGES } from "./pages.ts";

const textOf = (page: string) => readFileSync(join(ROOT, page), "utf8");

test("docs/commands and the list of commands are what `bun scripts/build_docs.ts` writes", () => {
  const wanted = commandPages();
  expect(readdirSync(join(ROOT, "docs/commands")).map((name) => `docs/commands/${name}`).sort()).toEqual(
    [...wanted.keys()].sort(),
  );
  for (const [page, text] of wanted) expect(textOf(page), page).toBe(text);
  expect(textOf("docs/README.md")).toBe(withCommandList(textOf("docs/README.md")));
});

test("every flag and example of every command stands on its page", () => {
  for (const [i, text] of [...commandPages().values()].entries()) {
    for (const { name } of COMMANDS[i].flags) expect(text).toContain(`\`--${name}`);
    for (const example of COMMANDS[i].examples) expect(text).toContain(`\n${example}\n`);
  }
  expect(() => withCommandList("no marks")).toThrow("docs/README.md");
});

test("docs/README.md lists every page", () => {
  const index = textOf("docs/README.md");
  const missing = PAGES.filter((page) => page.startsWith("docs/") && page !== "docs/README.md")
    .filter((page) => !index.includes(`](${page.slice("docs/".length)})`));
  expect(missing).toEqual([]);
});

test("the README is at most 200 lines", () => {
  expect(textOf("README.md").trimEnd().split("\n").length).toBeLessThanOrEqual(200);
});

/** Anchors of a page, as GitHub makes them of its headings. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
    heading.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
  );
}

test.each([...PAGES, "ARCHITECTURE.md", "kernels/README.md"])("%s: links lead to files and headings", (page) => {
  const dead = [...textOf(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link).filter((link) => {
    if (/^https?:/.test(link)) return false;
    const [path, anchor] = link.split("#");
    const target = path === "" ? page : normalize(join(dirname(page), path));
    if (!existsSync(join(ROOT, target))) return true;
    return anchor !== undefined && !anchorsOf(textOf(target)).includes(anchor);
  });
  expect(dead).toEqual([]);
});

describe("no command hides", () => {
  const PROGRAM = /^(\$ )?(npx performer|performer|npm|bun|node|deno|bench\/\w+\.sh) /;

  test("commands stand in fences that are run", () => {
    for (const page of PAGES) {
      const lines = textOf(page).split("\n");
      const indented = lines.filter((line) => /^ {4}/.test(line) && PROGRAM.test(line.trim()));
      expect(indented, page).toEqual([]);
      const silent = fencesOf(textOf(page)).filter(({ commands, language, code }) =>
        commands.length === 0 && language !== "text" && !code.startsWith("performer> ") &&
        code.split("\n").some((line) => PROGRAM.test(line))
      );
      expect(silent.map(({ line }) => `${page}:${line}: give the fence the language sh`)).toEqual([]);
    }
  });

  test("commands in running text name a command and flags that exist", () => {
    const wrong = PAGES.flatMap((page) => {
      const prose = textOf(page).replace(/^```[^]*?^```$/gm, "");
      return [...prose.matchAll(/`((?:npx )?performer (?:[a-z]+)\b[^`]*)`/g)].flatMap(([, text]) => {
        const words = text.replace(/^npx /, "").split(/\s+/).slice(1);
        const command = COMMANDS.find(({ name }) => name === words[0]);
        if (!command) return [`${page}: ${text}`];
        const flags = words.filter((word) => /^--?[a-zA-Z]/.test(word)).map((word) => word.replace(/^--?/, ""));
        const known = (flag: string) =>
          flag === "help" || command.flags.some(({ name, short }) => name === flag || short === flag);
        return flags.every(known) ? [] : [`${page}: ${text}`];
      });
    });
    expect(wrong).toEqual([]);
  });

  test("few fences are not run, and each says why", () => {
    const notRun = PAGES.flatMap((page) => fencesOf(textOf(page)).filter((fence) => fence.notRun !== null));
    expect(notRun.length).toBe(13); // what installs (4), four tables of trials, a study of hours, Python, engines, minutes of one core, 200 kills
  });
});

describe("fences", () => {
  test("sessions, scripts, notes", () => {
    const [session, script, text] = fencesOf([
      ..."a\n<!-- exit 1 -->\n```\n$ performer a \\\n    b\n  error    1\n$ performer c\n```\n<!-- lost -->\nb".split(
        "\n",
      ),
      ..."```sh\nperformer d # why\n\n# alone\nbun e\n```\n<!-- not run: slow -->\n\n```text\nperformer f\n```".split(
        "\n",
      ),
    ].join("\n"));
    expect(session).toMatchObject({ line: 3, exit: 1, notRun: null });
    expect(session.commands).toEqual([
      { line: 4, text: "performer a b", output: ["  error    1"] },
      { line: 7, text: "performer c", output: [] },
    ]);
    expect(script).toMatchObject({ exit: 0, notRun: null });
    expect(script.commands.map(({ text }) => text)).toEqual(["performer d # why", "bun e"]);
    expect(text).toMatchObject({ commands: [], notRun: "slow" });
    expect(() => fencesOf("```sh\nx")).toThrow("line 1");
  });

  test("words of simple commands, and what takes a shell", () => {
    expect(wordsOf(`performer x --p 'a "b' "c d"e -n 5%   # note`)).toEqual(
      ["performer", "x", "--p", `a "b`, "c de", "-n", "5%"],
    );
    expect(wordsOf("performer $H/q.npy a#b", new Map([["H", "x/y"]]))).toEqual(["performer", "x/y/q.npy", "a#b"]);
    for (const text of ["a | b", "a > b", "a && b", "a $(b)", "a $H", "a *", 'a "$H"', "a; b", "A=`b`"]) {
      expect(wordsOf(text), text).toBeNull();
    }
  });

  test("labels are words of a report, not rows of its tables", () => {
    const shown = [
      "  backend      wasm",
      "  held out     1",
      "  wasm     1,024    19 ms",
      "               x",
      "  a 1",
      "b  2",
    ];
    expect(labelsOf(shown)).toEqual(["backend", "held out", "wasm"]);
  });
});
