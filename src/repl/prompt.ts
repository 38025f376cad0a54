/** The interactive loop: lines from a person at a terminal, edited with node:readline, run one after the other. */
import * as readline from "node:readline";
import type { Console } from "../commands/command.ts";
import { useColor } from "../commands/progress.ts";
import { complete } from "./completer.ts";
import type { History } from "./history.ts";
import { Keys } from "./keys.ts";
import { NEW_SEARCH, type Search, searchLine, searchStep } from "./search.ts";
import type { Session } from "./session.ts";
import { goesOn } from "./words.ts";

const PROMPT = "performer> ";
const MORE = "      ...> ";
const CTRL_C = "\x03";
const CTRL_R = "\x12";
const CTRL_Z = "\x1a";
const UP: ReadonlySet<string> = new Set(["\x1b[A", "\x1bOA", "\x10"]);
const DOWN: ReadonlySet<string> = new Set(["\x1b[B", "\x1bOB", "\x0e"]);
const CLEAR = "\r\x1b[J";

/**
 * readline's interface with the line that it edits. Its own history is off: Node 24's keeps the lines of an entry in reverse, and gives them
 * back so on Bun.
 */
type Editor = readline.Interface & { line: string; cursor: number };

/** A walk through the history: what was typed before it began, and the entry that is shown. */
interface Walk {
  readonly typed: string;
  at: number;
}

/** The line at the bottom of a session's screen. */
export class Prompt {
  readonly #editor: Editor;
  readonly #keys: Keys;
  readonly #lines: string[] = [];
  #search: Search | null = null;
  #walk: Walk | null = null;
  /** Parts of a line that goes on. */
  #parts: string[] = [];
  #busy = false;
  #asking: { question: string; answer: (line: string | null) => void } | null = null;
  #done: (() => void) | null = null;
  #closed = false;

  constructor(readonly session: Session, readonly console: Console, readonly history: History) {
    const { input, output } = console;
    input.setRawMode(true);
    // Pasted text comes in brackets, which tell it from typed text.
    if (this.#fancy) output.write("\x1b[?2004h");
    this.#keys = new Keys(input, { key: (key) => this.#key(key) });
    this.#editor = readline.createInterface({
      input: this.#keys.stream,
      output,
      terminal: true,
      prompt: this.#prompt,
      historySize: 0,
      completer: (line: string) => complete(line, session),
    }) as Editor;
    this.#editor.on("line", (line) => this.#line(line));
    this.#editor.on("SIGINT", () => this.#cancel());
    this.#editor.on("close", () => {
      this.#closed = true;
      this.#asking?.answer(null);
      this.#finish();
    });
    session.onDue = () => void this.#due();
    session.asker = (question) => this.#ask(question);
  }

  get #fancy(): boolean {
    return this.session.terminal.env.TERM !== "dumb";
  }

  get #prompt(): string {
    const prompt = this.#asking ? this.#asking.question : this.#parts.length > 0 ? MORE : PROMPT;
    return useColor(this.session.terminal, {}) && !this.#asking ? `\x1b[36m${prompt}\x1b[39m` : prompt;
  }

  /** Runs a first line, if there is one, then asks for lines and runs them; settles when the person leaves. */
  async run(first?: string): Promise<void> {
    if (!this.#closed) {
      const done = new Promise<void>((resolve) => this.#done = resolve);
      if (first === undefined) this.#show();
      else this.#line(first);
      await done;
    }
    const { input, output } = this.console;
    if (!this.session.ended) output.write("\n"); // Ctrl-D leaves the prompt's line as it is
    if (this.#fancy) output.write("\x1b[?2004l");
    this.#keys[Symbol.dispose]();
    input.setRawMode(false);
    input.pause();
    await this.history.save();
  }

  /** Asks a question of its own; null when the person leaves or says no. Only while a line runs. */
  async #ask(question: string): Promise<string | null> {
    if (this.#closed) return null;
    const waiting = this.#lines.shift();
    if (waiting !== undefined) return waiting;
    return await new Promise((resolve) => {
      const answer = (line: string | null) => {
        this.#asking = null;
        resolve(line);
      };
      this.#asking = { question, answer };
      this.#show();
    });
  }

  #show(keep = false): void {
    if (this.#closed) return;
    this.#editor.setPrompt(this.#prompt);
    this.#editor.prompt(keep);
  }

  /** A key before readline has it. */
  #key(key: string): boolean {
    if (this.#search) {
      this.#searching(key);
      return true;
    }
    if (key === CTRL_C && this.#busy && !this.#asking) {
      this.session.interrupt();
      return true;
    }
    if (key === CTRL_Z) {
      this.#suspend();
      return true;
    }
    if (key === CTRL_R && !this.#busy && !this.#asking) {
      this.#search = NEW_SEARCH;
      this.#drawSearch();
      return true;
    }
    if ((UP.has(key) || DOWN.has(key)) && !this.#busy && !this.#asking) {
      this.#walkOn(UP.has(key) ? -1 : 1);
      return true;
    }
    this.#walk = null;
    return false;
  }

  /** Ctrl-Z: the shell has the terminal until it brings this program back. */
  #suspend(): void {
    const { input } = this.console;
    input.setRawMode(false);
    this.console.suspend();
    // The signal takes effect within a turn of the event loop; what follows happens when it is over.
    setTimeout(() => {
      input.setRawMode(true);
      if (!this.#busy || this.#asking) this.#show(true);
    }, 50);
  }

  /** Shows the next older or newer entry that begins as the line did. */
  #walkOn(step: -1 | 1): void {
    const { entries } = this.history;
    const walk = this.#walk ??= { typed: this.#editor.line, at: entries.length };
    for (let at = walk.at + step; at >= 0 && at <= entries.length; at += step) {
      const entry = entries[at] ?? walk.typed;
      if (!entry.startsWith(walk.typed) || entry === this.#editor.line) continue;
      walk.at = at;
      this.#put(entry);
      return;
    }
  }

  /** Makes a text the line that is edited. */
  #put(text: string): void {
    // The cursor goes to the first row of what stands there now, which is then cleared.
    this.#editor.cursor = 0;
    this.#show(true);
    this.console.output.write(CLEAR);
    this.#editor.line = text;
    this.#editor.cursor = text.length;
    this.#show(true);
  }

  #searching(key: string): void {
    const { entries } = this.history;
    const step = searchStep(this.#search!, key, entries);
    if (step.kind === "goes on") {
      this.#search = step.search;
      this.#drawSearch();
      return;
    }
    this.#search = null;
    this.console.output.write(CLEAR);
    if (step.kind === "taken" && step.entry !== null) {
      this.#editor.line = step.entry;
      this.#editor.cursor = step.entry.length;
    }
    this.#walk = null;
    this.#show(true);
    if (step.kind === "taken" && step.then !== null) this.#keys.stream.write(step.then);
  }

  #drawSearch(): void {
    this.console.output.write(
      `${CLEAR}${searchLine(this.#search!, this.history.entries, this.session.terminal.columns)}`,
    );
  }

  /** Ctrl-C with nothing running: the line goes. */
  #cancel(): void {
    if (this.#asking) {
      this.console.output.write("\n");
      this.#asking.answer(null);
      return;
    }
    const empty = this.#editor.line === "" && this.#parts.length === 0;
    this.console.output.write(empty ? "\n(Ctrl-D leaves)\n" : "^C\n");
    this.#parts = [];
    this.#editor.line = "";
    this.#editor.cursor = 0;
    this.#show();
  }

  #line(line: string): void {
    if (this.#asking) {
      this.#asking.answer(line);
      return;
    }
    this.#lines.push(line);
    if (!this.#busy) void this.#drain();
  }

  async #drain(): Promise<void> {
    this.#busy = true;
    for (let line; !this.session.ended && (line = this.#lines.shift()) !== undefined;) {
      this.#parts.push(line);
      const whole = this.#parts.join("\n");
      if (goesOn(whole)) continue;
      this.#parts = [];
      this.#walk = null;
      this.history.add(whole);
      await this.session.run(whole);
      await this.session.runDue();
    }
    this.#busy = false;
    if (this.session.ended) this.#editor.close();
    else this.#show();
    if (this.#closed) this.#finish();
  }

  /** Something that is watched has changed. */
  async #due(): Promise<void> {
    if (this.#busy || this.#search || this.#closed) return;
    this.#busy = true;
    this.console.output.write(CLEAR);
    await this.session.runDue();
    this.#busy = false;
    if (this.#lines.length > 0) void this.#drain();
    else this.#show(true);
  }

  #finish(): void {
    if (this.#busy || !this.#done) return;
    this.#done();
    this.#done = null;
  }
}
