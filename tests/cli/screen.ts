/** Screens of a real terminal: a command runs in a window of some size, and this is what a person would see there. */
import { openTerminal } from "./terminal_session.ts";

export { hasTmux } from "./terminal_session.ts";

export interface ScreenOptions {
  readonly columns: number;
  readonly cwd: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Keep colour codes, as tmux writes them. */
  readonly colors?: boolean;
  /** Milliseconds after which the command is given up. */
  readonly patience?: number;
}

/** The lines on the screen once the command has ended, without spaces at their ends, and an empty one. A line that is too long is two lines. */
export async function screenOf(command: readonly string[], options: ScreenOptions): Promise<string[]> {
  const { colors = false, patience = 50_000, ...window } = options;
  await using terminal = openTerminal(command, { ...window, rows: 400, patience });
  await terminal.ended();
  return [...terminal.lines({ colors }), ""];
}
