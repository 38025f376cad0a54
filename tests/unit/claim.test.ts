/** Claims on outputs: who gets one, what becomes of those of dead processes, and that no two processes ever hold one. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { claimOutput, claimPath } from "../../src/claim.ts";
import { TransientError } from "../../src/errors.ts";
import { ownMark, type ProcessMark } from "../../src/processes.ts";
import { ROOT, runProcess, RUNTIMES, scratch } from "../cli/process.ts";
import { rejection } from "../formats/support.ts";

const { path, remove } = scratch();
afterAll(remove);

const own = ownMark();
/** A process that had our number before us. */
const dead: ProcessMark = { ...own, started: "0" };
const elsewhere: ProcessMark = { ...own, pid: 4711, place: "elsewhere", host: "node7" };

/** Leaves the claim of a process. */
const leave = (file: string, mark: ProcessMark) => writeFileSync(file, JSON.stringify({ ...mark, since: "", id: "" }));
const left = (folder = path(".")) => readdirSync(folder).filter((name) => name.includes(".lock"));

describe("one process", () => {
  test("a claim lies beside the output, says whose it is, and is gone when given back", async () => {
    {
      using claim = await claimOutput(path("out.npy"));
      expect(claim.path).toBe(path(".out.npy.lock"));
      expect(JSON.parse(readFileSync(claim.path, "utf8"))).toMatchObject({ ...own });
      const error = await rejection(claimOutput(path("out.npy")));
      expect(error).toBeInstanceOf(TransientError);
      expect(error.message).toBe(`Cannot write "${path("out.npy")}": this process is at work on it`);
      using _other = await claimOutput(path("other.npy"));
    }
    expect(left()).toEqual([]);
  });

  test("all names of a file have one claim, also while it is not there", async () => {
    mkdirSync(path("folder"));
    symlinkSync("folder/target.npy", path("link.npy"));
    symlinkSync("folder", path("linked"));
    const wanted = path("folder/.target.npy.lock");
    for (const name of ["link.npy", "folder/target.npy", "linked/target.npy"]) {
      using claim = await claimOutput(path(name));
      expect([name, existsSync(wanted)]).toEqual([name, true]);
      expect((await rejection(claimOutput(path("folder/target.npy")))).message).toContain("this process");
      expect(claim.path.endsWith("/.target.npy.lock")).toBe(true);
    }
    expect(left(path("folder"))).toEqual([]);
  });

  test.skipIf(own.place === "")("that of a dead process is taken over, also where it died taking over", async () => {
    const file = claimPath(path("out.npy"));
    for (const files of [[file], [file, `${file}.take`], [file, `${file}.take`, `${file}.take.take`]]) {
      for (const each of files) leave(each, dead);
      using claim = await claimOutput(path("out.npy"));
      expect(JSON.parse(readFileSync(claim.path, "utf8"))).toMatchObject({ ...own });
      expect(left()).toEqual([".out.npy.lock"]);
    }
    expect(left()).toEqual([]);
  });

  test("that of another machine is left alone, and named; something else may say that it is left", async () => {
    const file = claimPath(path("out.npy"));
    leave(file, elsewhere);
    const error = await rejection(claimOutput(path("out.npy")));
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toContain("process 4711 on node7 has claimed it");
    expect(error.message).toContain(`remove "${file}" if it is over`);
    expect(left()).toEqual([".out.npy.lock"]);
    {
      using _claim = await claimOutput(path("out.npy"), { left: () => true });
    }
    expect(left()).toEqual([]);
  });

  test.each(["", "no JSON", "{}", '{"pid":"1"}'])("a file that says %j is nobody's to take", async (text) => {
    const file = claimPath(path("odd.npy"));
    writeFileSync(file, text);
    const error = await rejection(claimOutput(path("odd.npy")));
    expect(error).toBeInstanceOf(TransientError);
    expect(error.message).toContain(`"${file}" lies beside it and does not say who writes it; remove that file`);
    expect(readFileSync(file, "utf8")).toBe(text);
  });

  test("giving back leaves a claim alone that took the place of one removed by hand", async () => {
    const claim = await claimOutput(path("moved.npy"));
    leave(claim.path, elsewhere);
    claim[Symbol.dispose]();
    expect(existsSync(claim.path)).toBe(true);
  });
});

const ROUNDS = 50;
const PROCESSES = 8;

test.skipIf(own.place === "")("8 processes at once, 50 times over a dead claim: never two hold it", async () => {
  for (let round = 0; round < ROUNDS; round++) {
    const file = claimPath(path(`race${round}`));
    leave(file, dead);
    if (round % 3 === 0) leave(`${file}.take`, dead);
  }
  writeFileSync(
    path("racer.ts"),
    `import { closeSync, openSync, rmSync, writeFileSync } from "node:fs";
import { claimOutput } from ${JSON.stringify(join(ROOT, "src/claim.ts"))};
const [folder, name, start] = process.argv.slice(2);
for (let round = 0; round < ${ROUNDS}; round++) {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, Number(start) + 25 * round - 2 - Date.now())));
  while (Date.now() < Number(start) + 25 * round);
  let outcome = "won";
  try {
    using _claim = await claimOutput(folder + "/race" + round);
    const inside = folder + "/inside" + round;
    closeSync(openSync(inside, "wx")); // throws where another is inside
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 3));
    rmSync(inside);
  } catch (error) {
    outcome = error.exitCode === 75 && error.message.includes("at work on it") ? "busy" : String(error);
  }
  console.log(round, outcome);
}
`,
  );
  const start = Date.now() + 2000;
  const runs = Array.from({ length: PROCESSES }, (_, i) => {
    const command = i % 4 === 3 ? RUNTIMES.deno : RUNTIMES.bun;
    const env = { PATH: process.env.PATH!, HOME: path(".") };
    return runProcess([...command, path("racer.ts"), path("."), String(i), String(start)], { cwd: ROOT, env });
  });
  const winners = new Array<number>(ROUNDS).fill(0);
  for (const { stdout, stderr } of await Promise.all(runs)) {
    expect(stderr).toBe("");
    const lines = stdout.trim().split("\n");
    expect(lines.length).toBe(ROUNDS);
    for (const line of lines) {
      expect(line).toMatch(/^\d+ (won|busy)$/);
      if (line.endsWith("won")) winners[Number.parseInt(line)]++;
    }
  }
  // One wins, or one after the other: those that come when the first is done.
  expect(winners.filter((count) => count === 0)).toEqual([]);
  expect(left().filter((name) => name.startsWith(".race"))).toEqual([]);
}, 60_000);
