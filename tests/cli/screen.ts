/** Screens of a real terminal: tmux runs a command in a window of some size, and says what a person would see there. */
import { spawnSync } from "node:child_process";

const run = (...args: string[]) => spawnSync("tmux", args, { encoding: "utf8" });

export const hasTmux = run("-V").status === 0;

export interface ScreenOptions {
  readonly columns: number;
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Keep colour codes, as tmux writes them. */
  readonly colors?: boolean;
  /** Milliseconds after which the command is given up. */
  readonly patience?: number;
}

let screens = 0;

/** The lines on the screen once the command has ended, without spaces at their ends. A line that is too long is two lines. */
export async function screenOf(command: readonly string[], options: ScreenOptions): Promise<string[]> {
  const { columns, cwd, env = {}, colors = false, patience = 50_000 } = options;
  // A server of its own, so that no setting of another one counts.
  const server = ["-L", `performer-${process.pid}-${screens++}`, "-u", "-f", "/dev/null"];
  const { PATH } = process.env;
  const world = Object.entries({ PATH: PATH!, HOME: cwd, TERM: "xterm", LANG: "C.UTF-8", ...env });
  const words = ["env", "-i", ...world.map(([name, value]) => `${name}=${value}`), ...command].map(quoted).join(" ");
  const size = ["-x", String(columns), "-y", "400"];
  // The window would close, and the screen be gone, as soon as the command ends.
  const started = run(
    ...server,
    "set",
    "-g",
    "remain-on-exit",
    "on",
    ";",
    "new-session",
    "-d",
    ...size,
    "-c",
    cwd,
    words,
  );
  try {
    if (started.status !== 0) throw new Error(`tmux did not start: ${started.stderr}`);
    const until = performance.now() + patience;
    while (run(...server, "display", "-p", "#{pane_dead}").stdout.trim() !== "1") {
      if (performance.now() > until) throw new Error(`"${words}" did not end`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const lines = run(...server, "capture-pane", "-p", ...(colors ? ["-e"] : [])).stdout.split("\n");
    const end = lines.findIndex((line) => line.startsWith("Pane is dead"));
    return lines.slice(0, end < 0 ? lines.length : end).map((line) => line.trimEnd());
  } finally {
    run(...server, "kill-server");
  }
}

const quoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;
