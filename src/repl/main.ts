/** The story of `repl`: load the files, then run the lines of flags, of a file or of a pipe, or ask for them. */
import { type Invocation, type Terminal } from "../commands/command.ts";
import { readText, streamText } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { VERSION } from "../version.ts";
import { History } from "./history.ts";
import { Prompt } from "./prompt.ts";
import { Session } from "./session.ts";
import { goesOn } from "./words.ts";

/** For those who have no history yet. */
const HINT = `performer ${VERSION} · try x = randn(4096, 512) * 0.4, attend x --heads 8, then plot
load FILE reads yours · x[0:1024] are rows, x.head(3) a head, js CODE runs JavaScript
TAB completes, ?attend explains, :help lists it all, :tour teaches the paper, Ctrl-D leaves
`;
const SHORT_HINT = `performer ${VERSION} · :help lists everything, Ctrl-D leaves\n`;

/** Runs `performer repl`; returns the exit code: that of the line that failed, in a script. */
export async function runRepl({ arguments: files, flags }: Invocation, terminal: Terminal): Promise<number> {
  const commands = flags.command as string[] | undefined;
  const file = flags.file as string | undefined;
  if (commands && file !== undefined) throw new UsageError("Cannot use -c together with -f: give one of them");
  if (flags.tour && (commands || file !== undefined)) throw new UsageError("Cannot use --tour with a script");
  const plain: Readonly<Record<string, string>> = {
    ...(flags.ascii ? { TERM: "dumb" } : {}),
    ...(flags["no-color"] ? { NO_COLOR: "1" } : {}),
  };
  const world = Object.keys(plain).length > 0 ? within(terminal, plain) : terminal;
  await using session = new Session(world);
  const stop = () => session.interrupt();
  terminal.signal.addEventListener("abort", stop);
  try {
    if (commands) return await script(session, files, splitLines(commands));
    if (file !== undefined && file !== "-") return await script(session, files, splitLines([await readText(file)]));
    const console = file === undefined ? world.console : null;
    if (!console && flags.tour) return await session.run(":tour");
    if (!console) return await script(session, files, linesOf(streamText()));
    for (const path of files) await session.open(path);
    const history = await History.open(world, !flags["no-history"]);
    if (!flags.quiet && !flags.tour) world.out(history.entries.length === 0 ? HINT : SHORT_HINT);
    await new Prompt(session, console, history).run(flags.tour ? ":tour" : undefined);
    return 0;
  } finally {
    terminal.signal.removeEventListener("abort", stop);
  }
}

/** The same terminal with other words in its environment. */
const within = (terminal: Terminal, words: Readonly<Record<string, string>>): Terminal =>
  Object.create(terminal, { env: { value: { ...terminal.env, ...words } } });

/** Runs lines until one fails, and returns its code. */
async function script(
  session: Session,
  files: readonly string[],
  lines: AsyncIterable<string> | Iterable<string>,
): Promise<number> {
  for (const path of files) {
    const code = await session.open(path);
    if (code !== 0) return code;
  }
  for await (const line of lines) {
    const code = await session.run(line);
    if (code !== 0) {
      if (session.terminal.signal.aborted) return 130;
      session.terminal.err(`performer: stopped at: ${line.split("\n")[0]}\n`);
      return code;
    }
    await session.runDue();
    if (session.ended) break;
  }
  return 0;
}

/** Lines of texts; those that go on are one. */
function* splitLines(texts: readonly string[]): Generator<string> {
  for (const text of texts) {
    let parts: string[] = [];
    for (const line of text.replaceAll("\r\n", "\n").split("\n")) {
      parts.push(line);
      const whole = parts.join("\n");
      if (goesOn(whole)) continue;
      yield whole;
      parts = [];
    }
    if (parts.length > 0) yield parts.join("\n");
  }
}

/** The same for a text that comes in pieces: a line runs as soon as it has come. */
async function* linesOf(pieces: AsyncIterable<string>): AsyncGenerator<string> {
  let [text, parts] = ["", [] as string[]];
  const take = (line: string): string | null => {
    parts.push(line);
    const whole = parts.join("\n");
    if (goesOn(whole)) return null;
    parts = [];
    return whole;
  };
  for await (const piece of pieces) {
    const lines = (text + piece).split("\n");
    text = lines.pop()!;
    for (const line of lines) {
      const whole = take(line.replace(/\r$/, ""));
      if (whole !== null) yield whole;
    }
  }
  const last = take(text) ?? parts.join("\n");
  if (last !== "") yield last;
}
