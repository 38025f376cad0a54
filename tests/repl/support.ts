/** Sessions inside the test's own process, and what they say. */
import { tmpdir } from "node:os";
import type { Terminal } from "../../src/commands/command.ts";
import { Session } from "../../src/repl/session.ts";

export interface Heard extends AsyncDisposable {
  readonly session: Session;
  /** Runs a line; throws with what was said when its code is another. */
  run(line: string, code?: number): Promise<string>;
  /** Runs what is watched and has changed, and returns what it said. */
  runDue(): Promise<string>;
  /** Runs a line that must fail, and returns what it said. */
  fails(line: string, code?: number): Promise<string>;
}

/** A session without a terminal. Paths in lines must be absolute. */
export function heardSession(given: Partial<Terminal> = {}): Heard {
  let said = "";
  const terminal: Terminal = {
    env: { HOME: tmpdir(), NO_COLOR: "1" },
    cwd: process.cwd(),
    stdinTTY: false,
    stdoutTTY: false,
    stderrTTY: false,
    columns: 100,
    runtime: "test",
    out: (text) => void (said += text),
    err: (text) => void (said += text),
    peakBytes: () => 0,
    signal: new AbortController().signal,
    library: () => import("../../mod.ts"),
    ...given,
  };
  const session = new Session(terminal);
  const run = async (line: string, code = 0): Promise<string> => {
    said = "";
    const found = await session.run(line);
    if (found !== code) throw new Error(`"${line}" ended with ${found}, not ${code}, and said:\n${said}`);
    return said;
  };
  return {
    session,
    run,
    fails: (line, code = 2) => run(line, code),
    async runDue() {
      said = "";
      await session.runDue();
      return said;
    },
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  };
}
