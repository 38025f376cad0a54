/**
 * TypeScript in the documentation runs: each fence of language `ts` by itself, in a folder of small files. A comment behind
 * `console.log(…);` is what the line prints, as are the comments that a fence ends with; numbers may differ by a twentieth, as they do between backends and machines.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { npyBytes, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { zipOf } from "../formats/torch_made.ts";

interface Fence {
  readonly page: string;
  /** Of its first line. */
  readonly line: number;
  readonly code: string;
  /** What comments say it prints, in order. */
  readonly shown: readonly string[];
}

const PAGES = [
  "README.md",
  "examples/README.md",
  ...readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".md")).map((name) => join("docs", name)).sort(),
];

function fencesOf(page: string, text: string): Fence[] {
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
    page,
    line: text.slice(0, match.index).split("\n").length + 1,
    code: match[1],
    shown: [...match[1].matchAll(/console\.log\(.*\); \/\/ (.+)$/gm), ...atEnd(match[1])].map(([, comment]) => comment),
  }));
}

/** Comments that a fence ends with. */
function atEnd(code: string): IterableIterator<RegExpExecArray> {
  return (/(?:^\/\/ .+\n)+(?![^])/m.exec(code)?.[0] ?? "").matchAll(/^\/\/ (.+)$/gm);
}

/** The fence of the comment at the head of mod.ts. */
const head = readFileSync(join(ROOT, "mod.ts"), "utf8").split("*/")[0].replaceAll(/^ \* ?/gm, "");
const FENCES = [
  ...PAGES.flatMap((page) => fencesOf(page, readFileSync(join(ROOT, page), "utf8"))),
  ...fencesOf("mod.ts", head),
];

const { path: at, remove } = scratch();
const folder = dirname(at("x"));
const file = (i: number) => at(`fence_${i}.ts`);
afterAll(remove);

beforeAll(() => {
  const small = (shape: readonly number[], seed: number) => npyBytes(shape, (i) => 0.5 * wave(i + 1e6 * seed));
  writeFileSync(at("input.npy"), small([320, 64], 1));
  const members = ["q", "k", "v"].map((name, i) => ({ name: `${name}.npy`, data: small([4, 320, 16], 3 + i) }));
  writeFileSync(at("qkv.npz"), zipOf(members));
  const genome = readFileSync(join(ROOT, "examples/data/lambda_virus.fa"), "utf8").split("\n").slice(0, 22);
  writeFileSync(at("genome.fa"), genome.join("\n") + "\n");
  const model = "tests/golden/models/pod_performer"; // a Performer over the 256 bytes: 3 layers, 192 wide
  for (const name of ["model.pt", "config.json"]) copyFileSync(join(ROOT, model, name), at(name));
  const library = JSON.stringify(join(ROOT, "mod.ts"));
  for (const [i, { code }] of FENCES.entries()) writeFileSync(file(i), code.replaceAll('"performer"', library));
});

/** Whether a printed line is what a comment says. */
function alike(printed: string, comment: string): boolean {
  const number = /-?\d+(?:\.\d+)?/g;
  const frame = (text: string) => text.replaceAll(number, "0").replaceAll(/\s+/g, " ").trim();
  const [a, b] = [printed, comment].map((text) => [...text.matchAll(number)].map(([digits]) => Number(digits)));
  return frame(printed) === frame(comment) && a.every((value, i) => Math.abs(value - b[i]) <= 0.05 * Math.abs(b[i]));
}

test("there is TypeScript to run, and every shown line is a shown line", () => {
  expect(FENCES.length).toBeGreaterThan(5);
  expect(alike("a 1.02", "a  1.00")).toBe(true);
  expect(alike("a 1.2", "a 1")).toBe(false);
  expect(alike("b 1", "a 1")).toBe(false);
});

test("types of all fences", () => {
  const [deno] = RUNTIMES.deno;
  const args = ["check", "--quiet", "--config", join(ROOT, "deno.json"), ...FENCES.map((_, i) => file(i))];
  const { status, stderr } = spawnSync(deno, args, {
    cwd: ROOT,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" },
  });
  expect([status, stderr]).toEqual([0, ""]);
});

describe.each(FENCES.map(({ page, line, shown }, i) => ({ page, line, shown, i })))("$page:$line", ({ shown, i }) => {
  test("runs and prints what it says", () => {
    const [bun] = RUNTIMES.bun;
    const ran = spawnSync(bun, [file(i)], {
      cwd: folder,
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1" },
      timeout: 50_000,
    });
    expect([ran.status, ran.stderr]).toEqual([0, ""]);
    const printed = ran.stdout.split("\n");
    for (const comment of shown) {
      const at = printed.findIndex((line) => alike(line, comment));
      expect({ missing: at < 0 ? comment : null, printed: at < 0 ? ran.stdout : "" }).toEqual({
        missing: null,
        printed: "",
      });
      printed.splice(0, at + 1);
    }
  });
});
