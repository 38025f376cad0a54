/** Every export of mod.ts says in words what it is; what the library's own files export, member by member. */
import { expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { ROOT, RUNTIMES } from "../cli/process.ts";

const [deno] = RUNTIMES.deno;
const run = (...args: readonly string[]) => {
  const { stdout, stderr } = spawnSync(deno, ["doc", ...args, join(ROOT, "mod.ts")], {
    cwd: ROOT,
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  // deno-lint-ignore no-control-regex
  return { stdout, problems: stderr.replace(/\x1b\[\d+m/g, "").split("\n\n").filter((text) => /^error\[/m.test(text)) };
};

interface Documented {
  readonly name: string;
  readonly jsDoc?: { readonly doc?: string };
  readonly declarations?: readonly { readonly jsDoc?: { readonly doc?: string } }[];
}

/** Symbols of `deno doc --json`, whatever it calls the list. */
function symbolsOf(json: string): Documented[] {
  const parsed = JSON.parse(json) as { nodes: Documented[] | Record<string, { symbols: Documented[] }> };
  return Array.isArray(parsed.nodes) ? parsed.nodes : Object.values(parsed.nodes).flatMap(({ symbols }) => symbols);
}

test("every export has a sentence", () => {
  const symbols = symbolsOf(run("--json").stdout);
  expect(symbols.length).toBeGreaterThan(80);
  const words = ({ jsDoc, declarations = [] }: Documented) => [jsDoc, ...declarations.map((one) => one.jsDoc)];
  const silent = symbols.filter((symbol) => !words(symbol).some((doc) => doc?.doc));
  expect(silent.map(({ name }) => name)).toEqual([]);
});

test("members of the library's own types have one too, and name no type that is not exported", () => {
  const { problems } = run("--lint");
  expect(problems.length).toBeGreaterThan(0); // the parts underneath are described by their exports alone
  expect(problems.filter((problem) => problem.includes("src/library/"))).toEqual([]);
});
