/** The session at a real terminal, driven by keys (tmux), on Bun and on Deno; and scripts without one. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { npyBytes, performer, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { hasTmux, openTerminal, type TerminalSession } from "../cli/terminal_session.ts";
import { TOUR } from "../../src/tour/tour.ts";

const files = scratch();
beforeAll(() => {
  writeFileSync(files.path("genes.npy"), npyBytes([300, 16], wave));
  writeFileSync(files.path("notes.txt"), "no tensor\n");
  mkdirSync(files.path("folder"));
});
afterAll(() => files.remove());

/** The screen has no spaces at the ends of lines. */
const PROMPT = /performer>$/;

/** A session in a window, once its prompt is there. */
async function openRepl(runtime: string, args: readonly string[] = [], env: Record<string, string> = {}) {
  const command = [...RUNTIMES[runtime], `${ROOT}/cli.ts`, "repl", ...args];
  const terminal = openTerminal(command, {
    cwd: files.path(""),
    env: { XDG_STATE_HOME: files.path(`state-${runtime}`), ...env },
  });
  await terminal.until(PROMPT);
  return terminal;
}

/** Enters a line, and waits until what it says is there and the prompt is back. */
async function say(terminal: TerminalSession, line: string, wanted: string | RegExp): Promise<string> {
  terminal.enter(line);
  return await terminal.until((screen) => {
    const after = screen.slice(screen.lastIndexOf(line) + line.length);
    return PROMPT.test(screen) && (typeof wanted === "string" ? after.includes(wanted) : wanted.test(after));
  });
}

describe.skipIf(!hasTmux)("at a terminal (skipped without tmux)", () => {
  describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
    test("TAB completes commands, flags, values, files, variables, members, directives and topics", async () => {
      await using terminal = await openRepl(runtime, ["--no-history"]);
      /** Types the start of a line, presses TAB, and expects the line to become another. */
      const tab = async (typed: string, wanted: string) => {
        terminal.type(typed);
        terminal.press("Tab");
        await terminal.until((screen) => screen.split("\n").at(-1)!.startsWith(`performer> ${wanted}`));
        terminal.press("C-u");
        await terminal.until(PROMPT);
      };
      await tab("atte", "attend");
      await tab("genes = load ge", "genes = load genes.npy");
      await say(terminal, "genes = load genes.npy", "tensor [300, 16]");
      await tab("attend --cau", "attend --causal");
      await tab("attend genes --features hyp-aderf+", "attend genes --features hyp-aderf+sderf");
      await tab("attend gen", "attend genes");
      await tab("load fol", "load folder/");
      await tab("genes.sha", "genes.shape");
      await tab("y = stats", "y = stats(");
      await tab(":save", ":save-script");
      await tab(":set caus", ":set causal");
      await tab("?comp", "?comp");
      // Two TABs list what there is.
      terminal.type("attend genes --proj");
      terminal.press("Tab", "Tab");
      await terminal.until(/--projection +--projection-matrix/);
    }, 60_000);

    test(
      "history: Up, a search back, and one entry for an input of several lines; it is there again next time",
      async () => {
        const state = { XDG_STATE_HOME: files.path(`history-${runtime}`) };
        {
          await using terminal = await openRepl(runtime, [], state);
          expect(terminal.screen()).toContain("attend x --heads 8, then plot"); // the hint of the first time
          await say(terminal, "first = 1 + 1", "first = number 2");
          terminal.enter("both = first + (");
          await terminal.until(/\.\.\.>$/);
          await say(terminal, "  40)", "both = number 42");
          await say(terminal, "first * 3", "6");
          terminal.press("Up", "Up");
          await terminal.until(/performer> both = first \+ \(\n +40\)$/);
          terminal.press("Enter");
          await terminal.until((screen) => screen.split("both = number 42").length === 3 && PROMPT.test(screen));
          terminal.press("C-r");
          terminal.type("irst =");
          await terminal.until("search back: irst = │ first = 1 + 1");
          terminal.press("Enter");
          await terminal.until((screen) => screen.split("first = number 2").length === 3 && PROMPT.test(screen));
          terminal.press("C-d");
          expect(await terminal.ended()).toBe(0);
        }
        const entries = readFileSync(`${state.XDG_STATE_HOME}/performer/history`, "utf8").trim().split("\n").map((
          line,
        ) => JSON.parse(line));
        expect(entries).toEqual([
          "first = 1 + 1",
          "both = first + (\n  40)",
          "first * 3",
          "both = first + (\n  40)",
          "first = 1 + 1",
        ]);
        await using terminal = await openRepl(runtime, [], state);
        expect(terminal.screen()).not.toContain("then plot");
        terminal.type("both");
        terminal.press("Up"); // entries that begin so
        await terminal.until(/performer> both = first \+ \(\n +40\)$/);
      },
      60_000,
    );

    test("Ctrl-C stops a long run and keeps the session, clears a half-typed line; Ctrl-D leaves", async () => {
      await using terminal = await openRepl(runtime, ["--no-history"]);
      await say(terminal, "x = randn(60000, 64, 1) * 0.3", "tensor [60000, 64]");
      for (const backend of ["scalar", "wasm"]) {
        terminal.enter(`attend x --features softmax --backend ${backend}`);
        await terminal.until(/rows [\d,]+ of 60,000/);
        terminal.press("C-c");
        await terminal.until((screen) => /stopped[^\n]*\n(\w[^\n]*\n)?performer>$/.test(screen));
      }
      await say(terminal, "x.rows", "60000");
      await say(terminal, "attend x[0:500] --check 0", "500 rows");
      terminal.type("half a li");
      await terminal.until(/half a li$/);
      terminal.press("C-c");
      await terminal.until(/half a li\^C\nperformer>$/);
      await say(terminal, "1 + 1", "2");
      terminal.press("C-d");
      expect(await terminal.ended()).toBe(0);
    }, 60_000);

    test("pasted lines run one after the other, TABs in them complete nothing", async () => {
      await using terminal = await openRepl(runtime, ["--no-history"]);
      terminal.paste("a = 20\nb = a +\t2\n");
      await terminal.until(/b = number 22\nperformer>$/);
    }, 60_000);

    test("the tour from end to end", async () => {
      const command = [...RUNTIMES[runtime], `${ROOT}/cli.ts`, "repl", "--tour", "--no-history"];
      await using terminal = openTerminal(command, { cwd: files.path(""), columns: 90, rows: 60, patience: 60_000 });
      const asked = /q: leave >$/;
      for (const [i, { title }] of TOUR.entries()) {
        await terminal.until((screen) => asked.test(screen) && screen.includes(`Step ${i + 1} of ${TOUR.length}`));
        expect(terminal.lines({ history: true }).join("\n")).toContain(title);
        if (i === 2) {
          // Back, and on to a number.
          terminal.press("b", "Enter");
          await terminal.until((screen) => asked.test(screen) && screen.includes("Step 2 of"));
          terminal.press("3", "Enter");
          await terminal.until((screen) => asked.test(screen) && screen.includes("Step 3 of"));
        }
        terminal.press("Enter");
      }
      await terminal.until(/That was the tour\.[^]*performer>$/);
      const shown = terminal.lines({ history: true }).join("\n");
      expect(shown).not.toMatch(/NaN|undefined|\[object/);
      await say(terminal, "1 + 1", "2");
    }, 150_000);
  });
});

describe.each(Object.keys(RUNTIMES))("scripts on %s", (runtime) => {
  test("from a pipe: no prompt, no hint; the first line that fails ends it with its code", async () => {
    const script = `x = load genes.npy
y = x[0:10] \\
  * 2
y.shape[0] # rows
attned x
1 + 1`;
    const input = new TextEncoder().encode(script);
    const { code, stdout, stderr } = await performer(["repl"], { runtime, cwd: files.path(""), input });
    expect(code).toBe(2);
    expect(stdout).toBe("x = tensor [300, 16] f32 · 19.2 kB · genes.npy\ny = tensor [10, 16] f32 · 640 B\n10\n");
    expect(stderr).toBe(
      'Unknown command "attned": did you mean attend? :help lists what there is\nperformer: stopped at: attned x\n',
    );
  });

  test("-c lines, -f files, and files that are loaded first", async () => {
    writeFileSync(files.path("script.txt"), "genes.rows\n:quit\nnever\n");
    const options = { runtime, cwd: files.path("") };
    expect(await performer(["repl", "genes.npy", "-f", "script.txt"], options)).toMatchObject({
      code: 0,
      stdout: "genes = tensor [300, 16] f32 · 19.2 kB · genes.npy\n300\n",
      stderr: "",
    });
    expect(await performer(["repl", "-c", "2 ^ 10", "-c", "js 1n << 70n"], options)).toMatchObject({
      code: 0,
      stdout: "1024\n1180591620717411303424\n",
    });
    expect(await performer(["repl", "-c", "1", "-f", "script.txt"], options)).toMatchObject({ code: 2 });
  });
});
