/**
 * A program in a real terminal, driven by keys as a person would: tmux holds the window, and says what stands on it.
 *
 *     await using terminal = openTerminal(["bash", "--norc"], { cwd: folder });
 *     await terminal.until(/\$ $/);
 *     terminal.type("echo h");
 *     terminal.press("i", "Enter");
 *     await terminal.until(/^hi$/m);
 */
import { spawnSync } from "node:child_process";
import { installed } from "./programs.ts";

const run = (args: readonly string[]) => spawnSync("tmux", args, { encoding: "utf8" });

export const hasTmux = installed("tmux", "-V");

export interface TerminalOptions {
  readonly cwd: string;
  /** Added to PATH, HOME (the working directory), TERM and LANG; nothing else of this process is passed on. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default 100 × 40. */
  readonly columns?: number;
  readonly rows?: number;
  /** Milliseconds after which a wait is given up; default 30,000. */
  readonly patience?: number;
}

/** What to wait for: a word on the screen, a pattern over its lines, or a rule. */
export type Wanted = string | RegExp | ((screen: string) => boolean);

let servers = 0;

/** Starts a command in a window of its own, which stays after the command has ended. Throws where tmux cannot. */
export function openTerminal(command: readonly string[], options: TerminalOptions): TerminalSession {
  return new TerminalSession(command, options);
}

export class TerminalSession implements AsyncDisposable {
  // A server of its own, so that no setting of another one counts.
  readonly #server = ["-L", `performer-${process.pid}-${servers++}`, "-u", "-f", "/dev/null"];
  readonly #command: string;
  readonly #patience: number;

  constructor(command: readonly string[], options: TerminalOptions) {
    const { cwd, env = {}, columns = 100, rows = 40, patience = 30_000 } = options;
    this.#patience = patience;
    const world = Object.entries({ PATH: process.env.PATH!, HOME: cwd, TERM: "xterm", LANG: "C.UTF-8", ...env });
    this.#command = command.join(" ");
    // The command's end is told in the window's title, in order with all that it wrote: tmux itself forgets some exit codes.
    // Where tests are given up or killed, the window goes with their process.
    const watch = `(while kill -0 ${process.pid}; do sleep 2; done; tmux kill-server) < /dev/null > /dev/null 2>&1 &`;
    const keep = `trap : INT; "$@"; printf '\\033]2;exit %s\\007' $?; trap '' INT; exec sleep 3600`;
    const words = [
      "sh",
      "-c",
      `${watch} ${keep}`,
      "sh",
      "env",
      "-i",
      ...world.map(([name, value]) => `${name}=${value}`),
      ...command,
    ];
    // Esc is sent on at once: tmux would wait for a key that it may belong to.
    const settings = ["set", "-s", "escape-time", "0", ";"];
    const size = ["-x", String(columns), "-y", String(rows)];
    const { status, stderr } = this.#tmux(...settings, "new-session", "-d", ...size, "-c", cwd, ...words.map(literal));
    if (status !== 0) throw new Error(`tmux did not start: ${stderr}`);
  }

  /** Types text as it is, without Enter. */
  type(text: string): void {
    this.#tmux("send-keys", "-l", "--", literal(text));
  }

  /** Presses keys by tmux's names: "Enter", "Tab", "C-c", "Up", "BSpace", "Escape", "M-b", or a letter. */
  press(...keys: readonly string[]): void {
    this.#tmux("send-keys", ...keys);
  }

  /** Types a line and presses Enter. */
  enter(line: string): void {
    this.type(line);
    this.press("Enter");
  }

  /** Pastes text as terminals do: between brackets where the program asked for them. */
  paste(text: string): void {
    this.#tmux("set-buffer", "--", literal(text));
    this.#tmux("paste-buffer", "-p", "-d");
  }

  /** Changes the size of the window; the program is told. */
  resize(columns: number, rows: number): void {
    this.#tmux("resize-window", "-x", String(columns), "-y", String(rows));
  }

  /**
   * The lines on the screen without spaces at their ends and empty lines at the end. A line that is too long is two lines.
   * `colors` keeps colour codes, as tmux writes them; `history` adds what has left the screen at the top.
   */
  lines({ colors = false, history = false }: { colors?: boolean; history?: boolean } = {}): string[] {
    const { stdout } = this.#tmux("capture-pane", "-p", ...(colors ? ["-e"] : []), ...(history ? ["-S", "-"] : []));
    return stdout.split("\n").map((line) => line.trimEnd()).join("\n").trimEnd().split("\n");
  }

  /** The screen as one text. */
  screen(): string {
    return this.lines().join("\n");
  }

  /** Column and row of the cursor, from 0. */
  cursor(): { column: number; row: number } {
    const [column, row] = this.#ask("#{cursor_x} #{cursor_y}").split(" ").map(Number);
    return { column, row };
  }

  /** The exit code (128 + n after signal n); null while the command runs. */
  exitCode(): number | null {
    const title = /^exit (\d+)$/.exec(this.#ask("#{pane_title}"));
    return title ? Number(title[1]) : null;
  }

  /** Waits until the screen shows something, and returns it; throws with the screen when it does not in time. */
  async until(wanted: Wanted): Promise<string> {
    const shows = (screen: string) => {
      return typeof wanted === "string"
        ? screen.includes(wanted)
        : wanted instanceof RegExp
        ? wanted.test(screen)
        : wanted(screen);
    };
    let screen = "";
    await this.#wait(() => shows(screen = this.screen()), () => `the screen never showed ${wanted}:\n${screen}`);
    return screen;
  }

  /** Waits until the screen has stayed the same for some milliseconds, and returns it: for what should not happen. */
  async settled(calm = 400): Promise<string> {
    let screen = this.screen();
    let since = performance.now();
    await this.#wait(() => {
      const now = this.screen();
      if (now !== screen) [screen, since] = [now, performance.now()];
      return performance.now() - since >= calm;
    }, () => `the screen never came to rest:\n${screen}`);
    return screen;
  }

  /** Waits until the command has ended, and returns its exit code. */
  async ended(): Promise<number> {
    await this.#wait(() => this.exitCode() !== null, () => `"${this.#command}" did not end:\n${this.screen()}`);
    return this.exitCode()!;
  }

  /** Ends everything in the window. */
  close(): void {
    this.#tmux("kill-server");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  async #wait(done: () => boolean, failure: () => string): Promise<void> {
    const until = performance.now() + this.#patience;
    while (!done()) {
      if (performance.now() > until) throw new Error(failure());
      await new Promise((resolve) => setTimeout(resolve, 40));
    }
  }

  #ask(format: string): string {
    return this.#tmux("display", "-p", format).stdout.trimEnd();
  }

  #tmux(...args: readonly string[]) {
    return run([...this.#server, ...args]);
  }
}

/** tmux takes a last ";" for the end of its own command. */
const literal = (word: string) => word.replace(/;$/, "\\;");
