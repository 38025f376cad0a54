/** Mistyped commands, flags and values: what was probably meant is said, and nothing is run by guess. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { refuseMistakes } from "../../src/commands/mistakes.ts";
import { COMMANDS } from "../../src/commands/mod.ts";
import { parse, type Parsed } from "../../src/commands/parse.ts";
import { inside, performer, RUNTIMES } from "./process.ts";

/** A line, and the whole message. */
const LINES: [string, string][] = [
  ["attned x.npy", 'Unknown command "attned": did you mean attend? performer help lists the commands'],
  ["nonsense", 'Unknown command "nonsense": performer help lists the commands'],
  ["version", 'Unknown command "version": did you mean performer --version? performer help lists the commands'],
  [
    "genome.npy --causal",
    'Unknown command "genome.npy": did you mean performer attend genome.npy --causal? performer help lists the commands',
  ],
  [
    "genome.fa",
    'Unknown command "genome.fa": did you mean performer attend genome.fa --encode kmer:6? performer help lists the commands',
  ],
  [
    "model.pt",
    'Unknown command "model.pt": did you mean performer inspect model.pt? performer help lists the commands',
  ],
  ["--verison", "Unknown flag --verison: did you mean --version? performer help lists the commands"],
  [
    "--causal x.npy",
    "Cannot use --causal before a command: say performer attend first; performer help lists the commands",
  ],
  [
    "attend x.npy --bakend=wasm",
    "Unknown flag --bakend of attend: did you mean --backend? performer attend --help lists its flags",
  ],
  [
    "attend x.npy --num 64",
    "Unknown flag --num of attend: did you mean --num-features? performer attend --help lists its flags",
  ],
  ["attend x.npy --m 64", "Unknown flag --m of attend: did you mean -m? performer attend --help lists its flags"],
  [
    "attend x.npy -features relu",
    "Unknown flag -features of attend: did you mean --features? performer attend --help lists its flags",
  ],
  ["attend x.npy -qz", "Unknown flag -z of attend: performer attend --help lists its flags"],
  [
    "run m.pt x.npy --window 3",
    "Cannot use --window with run: it is a flag of attend, compare, explain and bench; performer run --help lists its flags",
  ],
  ["attend a.npy b.npy", 'Cannot use "b.npy": attend takes INPUT only, which is "a.npy"; quote names with spaces'],
  ["doctor now", 'Cannot use "now": doctor takes no arguments'],
  ["convert a.pt", "Missing OUT: performer convert IN OUT"],
  ["completions", "Missing SHELL: performer completions SHELL"],
  [
    "attend x.npy --projection",
    "Missing value of --projection: expected NAME, such as orthogonal, found the end of the line",
  ],
  ["attend x.npy -o --json", "Missing value of --output: expected FILE, found the flag --json"],
  ["attend x.npy --causal=yes", "Cannot use --causal=yes: --causal is a switch without a value"],
  ["attend x.npy --shrink atuo", "Cannot use --shrink atuo: did you mean auto? expected auto, a number from 0"],
  ["attend x.npy --params smaple:64", "Cannot use --params smaple:64: did you mean sample:64? expected fixed"],
  [
    "compare x.npy --projection iid,sobl",
    'Cannot use --projection iid,sobl: "sobl": did you mean sobol? expected a list',
  ],
  ["attend x.npy --compat gogle", "Cannot use --compat gogle: did you mean google? expected one of"],
];

test.each(LINES)("performer %s", async (line, message) => {
  const { code, stdout, stderr } = await inside(line.split(" "));
  expect(stderr).toStartWith(`performer: ${message}`);
  expect(stderr.split("\n").length).toBe(2);
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

test.each(Object.keys(RUNTIMES))("on %s nothing is run by guess", async (runtime) => {
  const { code, stdout, stderr } = await performer(["genome.npy", "-o", "--json"], { runtime });
  expect([code, stdout]).toEqual([2, ""]);
  expect(stderr).toContain("did you mean performer attend genome.npy -o --json?");
  expect(existsSync("--json")).toBe(false);
});

test("what looks like a mistake and is none", async () => {
  // A value that begins with a dash, switches that repeat themselves, and help beside a mistake.
  expect((await inside(["attend", "no.npy", "--rows", "-5:", "-qq", "-q"])).stderr).toContain("no such file");
  expect(refuseMistakes(["repl", "a.npy", "b.npy", "c.npy", "-c", "1", "-c", "2"], COMMANDS)).toEqual([]);
  expect((await inside(["attend", "--", "-no.npy"])).stderr).toContain('"-no.npy": no such file');
  const { code, stdout } = await inside(["attend", "--cuasal", "--help"]);
  expect([code, stdout.includes("--causal")]).toEqual([0, true]);
});

test("of a flag that is given twice the last counts, and a person is told so", () => {
  const said = (line: string) => refuseMistakes(line.split(" "), COMMANDS);
  expect(said("attend x.npy -m 64 --num-features=128")).toEqual(["Only the last --num-features counts, 128"]);
  expect(said("bench --backend wasm --backend scalar")).toEqual([
    "Only the last --backend counts, scalar; for all of them say --backend wasm,scalar",
  ]);
  expect(said("attend x.npy -m 64 -m 64 --causal --causal")).toEqual([]);
  const spoken = (stderrTTY: boolean) => {
    let stderr = "";
    const terminal = { out: () => {}, err: (text: string) => void (stderr += text), columns: 80, stderrTTY };
    const parsed = parse(["attend", "x.npy", "--seed", "1", "--seed", "2"], terminal);
    expect((parsed as Parsed).invocation.flags.seed).toBe(2);
    return stderr;
  };
  expect([spoken(true), spoken(false)]).toEqual(["performer: Only the last --seed counts, 2\n", ""]);
});

test("names that are offered are ones that are taken", async () => {
  for (const command of COMMANDS) {
    for (const { parse, choices, offers = [], list } of command.flags) {
      for (const text of offers) {
        if (choices) expect(choices).toContain(text);
        parse?.(text);
      }
      if (list && choices) expect(parse).toBeUndefined();
    }
  }
});
