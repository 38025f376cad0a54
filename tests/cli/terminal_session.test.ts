/** The terminal that other tests press keys in. */
import { expect, test } from "bun:test";
import { tmpdir } from "node:os";
import { hasTmux, openTerminal } from "./terminal_session.ts";

const SHELL = ["bash", "--norc", "--noprofile", "-i"];

test.skipIf(!hasTmux)("keys arrive, waits see the screen, and the exit code is told (needs tmux)", async () => {
  await using terminal = openTerminal(SHELL, { cwd: tmpdir(), columns: 60, rows: 10, env: { PS1: "ready> " } });
  await terminal.until(/^ready> ?$/m);
  terminal.type("echo $((6 * 7)); x=one;");
  terminal.press("BSpace", "Enter");
  expect(await terminal.until(/^42$/m)).toContain("ready> echo");
  terminal.enter("cat");
  terminal.paste("pasted; text;\n");
  await terminal.until(/^pasted; text;\npasted; text;$/m);
  terminal.press("C-c");
  terminal.resize(50, 12);
  terminal.enter("clear; echo $COLUMNS $x");
  expect(await terminal.until(/^50 one$/m)).not.toContain("pasted");
  expect(await terminal.settled()).toEndWith("ready>");
  expect(terminal.cursor()).toEqual({ column: 7, row: 1 });
  expect(terminal.exitCode()).toBe(null);
  terminal.enter("exit 3");
  expect(await terminal.ended()).toBe(3);
});

test.skipIf(!hasTmux)("a wait in vain says what the screen showed (needs tmux)", async () => {
  await using terminal = openTerminal(["sh", "-c", "echo here; sleep 30"], { cwd: tmpdir(), patience: 1000 });
  const error = await terminal.until("elsewhere").catch((error: Error) => error);
  expect((error as Error).message).toBe("the screen never showed elsewhere:\nhere");
});

test.skipIf(!hasTmux)("signals are told as shells do, and words stay as they are (needs tmux)", async () => {
  const words = ["sh", "-c", 'printf "<%s>" "$@"; kill -9 $$', "sh", "a;", "b c", "'$HOME'"];
  await using terminal = openTerminal(words, { cwd: tmpdir() });
  expect(await terminal.ended()).toBe(137);
  expect(terminal.screen()).toContain("<a;><b c><'$HOME'>");
});
