/** `performer help`, its pages, and the man page made from them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { BACKEND_NAMES } from "../../src/backend.ts";
import { topicText } from "../../src/commands/help_text.ts";
import { refuseMistakes } from "../../src/commands/mistakes.ts";
import { COMMANDS } from "../../src/commands/mod.ts";
import { parse } from "../../src/commands/parse.ts";
import { FAR_FIELDS, FEATURE_MAPS } from "../../src/feature_map.ts";
import { TOPICS } from "../../src/help/mod.ts";
import { GROUPS } from "../../src/help/topic.ts";
import { PROJECTIONS } from "../../src/projection.ts";
import { RULES } from "../../src/rules_table.ts";
import { installed } from "./programs.ts";
import { inside, npyBytes, performer, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
beforeAll(() => writeFileSync(path("x.npy"), npyBytes([40, 8], wave)));
afterAll(remove);

/** Words of a command line as a shell cuts them, up to a pipe, a redirection or a comment. */
function wordsOf(line: string): string[] {
  const words = line.replace(/ +#.*$/, "").match(/'[^']*'|[^ ]+/g)!.map((word) => word.replace(/^'(.*)'$/, "$1"));
  const end = words.findIndex((word) => word === "|" || word === ">");
  return end < 0 ? words : words.slice(0, end);
}

const NOTHING = { out: () => {}, err: () => {}, columns: 100 };

test("every command, feature map, far field, projection, backend and profile has a page", async () => {
  const names = [
    ...COMMANDS.map(({ name }) => name),
    ...FEATURE_MAPS.map(({ name }) => name),
    ...FAR_FIELDS.filter((name) => name !== "none"),
    "softmax",
    ...Object.keys(PROJECTIONS),
    ...BACKEND_NAMES,
    ...RULES.map(({ name }) => name),
    ...["attention", "features", "projection", "error", "choosing", "formats", "causal", "near-and-far", "backend"],
    ...["configuration", "exit-codes", "json"],
  ];
  for (const name of names) expect((await topicText(name, 80)).length).toBeGreaterThan(100);
});

test("pages are whole: a name of their own, text, examples, and references that lead somewhere", () => {
  const known = new Set([...TOPICS, ...COMMANDS].map(({ name }) => name));
  expect(known.size).toBe(TOPICS.length + COMMANDS.length);
  for (const { name, group, summary, body, examples, see } of TOPICS) {
    expect(GROUPS).toContain(group);
    expect(summary.length).toBeGreaterThan(5);
    expect([name, body.length > 0, examples.length > 0]).toEqual([name, true, true]);
    for (const other of see) expect([name, other, known.has(other)]).toEqual([name, other, true]);
    expect([name, see.includes(name)]).toEqual([name, false]);
  }
});

test("every example, of pages and of commands, is a line that the table takes", () => {
  for (const line of [...TOPICS, ...COMMANDS].flatMap(({ examples }) => examples)) {
    const [program, ...argv] = wordsOf(line.replace(/^source <\((.*?)\)/, "$1"));
    expect(program).toBe("performer");
    refuseMistakes(argv, COMMANDS);
    expect([line, typeof parse(argv, NOTHING)]).toEqual([line, "object"]);
  }
});

test("examples of feature maps, far fields, projections and profiles run", async () => {
  const tried = TOPICS.filter(({ group }) => ["feature maps", "far fields", "projections", "numerics"].includes(group));
  for (const line of tried.flatMap(({ examples }) => examples).filter((line) => line.startsWith("performer attend"))) {
    const backend = line.includes("--backend") ? [] : ["--backend", "scalar"];
    const argv = wordsOf(line).slice(1).map((word) => word === "qkv.npz" ? path("x.npy") : word);
    const { code, stderr } = await inside([...argv, ...backend, "--quiet", "--check", "8"]);
    expect([line, code, stderr.replace(/^.*no better.*$/m, "").trim()]).toEqual([line, 0, ""]);
  }
});

test("lines are as long as the terminal is wide", async () => {
  for (const columns of [60, 80, 200]) {
    const most = Math.min(columns, 100);
    for (const { name } of TOPICS) {
      for (const line of (await topicText(name, columns)).split("\n")) {
        // Formulas and command lines are never broken, and fit into 80.
        expect([name, line.length <= (/^ {4}|^ {2}performer/.test(line) ? Math.max(80, most) : most)]).toEqual([
          name,
          true,
        ]);
      }
    }
    for (const line of (await inside(["help"])).stdout.split("\n")) expect(line.length).toBeLessThanOrEqual(100);
  }
});

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("help lists groups, explains a name, and suggests the nearest", async () => {
    const { stdout } = await performer(["help"], { runtime });
    for (
      const words of ["Commands:", "Topics:", "Feature maps:", "Far fields:", "Projections:", "Backends:", "hyp-oprf"]
    ) {
      expect(stdout).toContain(words);
    }
    const page = await performer(["help", "positive"], { runtime });
    expect([page.code, page.stderr]).toEqual([0, ""]);
    expect(page.stdout).toContain("e^(w_1·x) … e^(w_r·x)");
    const slip = await performer(["help", "positiv"], { runtime });
    expect([slip.code, slip.stdout]).toEqual([2, ""]);
    expect(slip.stderr).toBe(
      'performer: Unknown topic "positiv": did you mean positive? performer help lists the topics\n',
    );
  });
});

test("the page of a command is its --help, that of a flag says which commands have it", async () => {
  for (const { name } of COMMANDS) {
    expect((await inside(["help", name])).stdout).toBe((await inside([name, "--help"])).stdout);
  }
  expect(await topicText("--window", 80)).toStartWith(
    "--window W\n\nattend, compare, explain, bench: keys fewer than W rows away",
  );
  expect(await topicText("-m", 80)).toContain("-m, --num-features R");
  expect((await inside(["help", "--windw"])).stderr).toContain("did you mean --window?");
});

describe("the man page", () => {
  const read = (command: string) => {
    const env = { PATH: process.env.PATH!, LC_ALL: "C.UTF-8", MANWIDTH: "80" };
    return spawnSync("bash", ["-c", command], { cwd: path("."), env, encoding: "utf8" });
  };
  beforeAll(async () => writeFileSync(path("performer.1"), (await inside(["man"])).stdout));

  test("holds every command, flag and topic, in ASCII", async () => {
    const { code, stdout } = await inside(["man"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^[\n\u0020-\u007e]*$/);
    const dashes = (text: string) => text.replaceAll("-", "\\-");
    for (const { name, flags } of COMMANDS) {
      expect(stdout).toContain(`.SS \\fBperformer ${name}\\fR`);
      for (const flag of flags) expect(stdout).toContain(`\\fB\\-\\-${dashes(flag.name)}\\fR`);
    }
    for (const { name } of TOPICS) expect(stdout).toContain(`.SS "${dashes(name)}"`);
  });

  test.skipIf(!installed("man"))("man shows it without a warning (needs man)", () => {
    const { status, stdout, stderr } = read("man --warnings -l performer.1");
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("-m, --num-features R");
    expect(stdout).toContain("uniform baseline  = ‖Ō − O‖ / ‖O‖");
    expect(stdout).not.toContain("\\");
  });

  test.skipIf(!installed("mandoc", "-h"))("mandoc finds nothing but long lines of its source (needs mandoc)", () => {
    const { stdout } = read("mandoc -T lint performer.1 | grep -v 'input text line longer than 80 bytes'");
    expect(stdout).toBe("");
    // Bold letters are overstruck.
    const shown = read("mandoc -T utf8 performer.1").stdout.replace(/.[\b]/g, "");
    expect(shown.match(/skill +=.*$/m)?.[0]).toBe("skill             = 1 − ‖Ô − O‖² / ‖Ō − O‖²");
  });
});
