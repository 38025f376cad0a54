/** A session: variables, settings, open backends, and lines that are run one after the other. */
import { changeTime } from "../bytes.ts";
import type { Command, Terminal } from "../commands/command.ts";
import { execute, explain } from "../commands/main.ts";
import { flagsGiven } from "../commands/command_words.ts";
import { COMMANDS } from "../commands/mod.ts";
import { InputError, PerformerError, UsageError } from "../errors.ts";
import { duration, plain } from "../words.ts";
import { builtinsFor } from "./builtins.ts";
import { runDirective } from "./directives.ts";
import { evaluate } from "./evaluate.ts";
import { parseExpression } from "./expression.ts";
import { runScript } from "./javascript.ts";
import { loadFile, nameFor } from "./load.ts";
import { resolveWords } from "./references.ts";
import { Log, type LogEntry, wordsKnown } from "./script.ts";
import { showValue, summaryOf } from "./show.ts";
import { type Statement, statementOf } from "./statement.ts";
import type { ReportValue, TensorValue, Value } from "./values.ts";
import { WarmBackends } from "../backends/warm.ts";
import { startWatch, type Watch } from "./watch.ts";
import { joined } from "./words.ts";
import { Workspace } from "./workspace.ts";

/** What `:undo` brings back. */
export interface SessionState {
  readonly variables: ReadonlyMap<string, Value>;
  readonly settings: Readonly<Record<string, string>>;
  readonly log: Log;
}

/** How long a line that was told to stop may take, in milliseconds, before it is left to itself. */
const PATIENCE = 150;
/** States that can be brought back. */
const MOST_STATES = 100;

export class Session implements AsyncDisposable {
  state: SessionState = { variables: new Map(), settings: {}, log: Log.EMPTY };
  readonly workspace: Workspace;
  readonly backends = new WarmBackends();
  readonly commands: readonly Command[];
  /** Lines that are run again when something changes. */
  watches: readonly Watch[] = [];
  showTime = false;
  /** Asks the person a question; null where nobody can be asked. */
  asker: ((question: string) => Promise<string | null>) | null = null;
  /** Called when something that is watched has changed. */
  onDue: (() => void) | null = null;
  /** Set by `:quit`. */
  ended = false;
  readonly #before: SessionState[] = [];
  #running: AbortController | null = null;
  #undone = false;
  /** A file that a command is about to write, and what it will be called. */
  #expected: readonly [path: string, name: string] | null = null;
  /** The world of the line that runs. */
  #world: Terminal;

  constructor(readonly terminal: Terminal) {
    this.workspace = new Workspace(terminal);
    this.#world = terminal;
    this.commands = [...COMMANDS.filter(({ name }) => name !== "repl"), ...builtinsFor(this)];
  }

  /** The world of the line that runs: what a command may print to, and what stops it. */
  get world(): Terminal {
    return this.#world;
  }

  /** Stops the running line; false where none runs, or was stopped already. */
  interrupt(): boolean {
    if (!this.#running || this.#running.signal.aborted) return false;
    this.#running.abort(new Error("interrupted"));
    return true;
  }

  /** Runs a line; 0, or the exit code that a command of it has. Never throws. */
  async run(line: string): Promise<number> {
    return await this.#guarded((world) => this.#statement(line).catch((error) => this.#explain(error, world)));
  }

  /** Runs a line as part of the line that runs already. Throws what goes wrong. */
  async inline(line: string): Promise<number> {
    return await this.#statement(line);
  }

  /** Runs again what is watched and has changed. */
  async runDue(): Promise<void> {
    for (const watch of this.watches.filter(({ due }) => due)) {
      await this.#guarded((world) => watch.run().catch((error) => this.#explain(error, world)));
    }
  }

  /** Runs a watched command. */
  async runWatched(line: string): Promise<{ code: number; report: ReportValue | null; paths: string[] }> {
    const statement = statementOf(joined(line), this.commands, [...this.state.variables.keys()]);
    if (statement.kind !== "command") throw new UsageError(`Cannot watch "${line}": expected a command`);
    const command = this.commands.find(({ name }) => name === statement.words[0].text)!;
    const words = await resolveWords(statement.words, command, this.#scope);
    const before = this.state.variables.get("_");
    const code = await this.runCommand(command, words, { line });
    const last = this.state.variables.get("_");
    const paths = words.slice(1).filter((word) => changeTime(word) !== null && !this.workspace.owns(word));
    return { code, report: last !== before && last?.kind === "report" ? last : null, paths };
  }

  /** Runs something that Ctrl-C stops. */
  async #guarded(start: (world: Terminal) => Promise<number>): Promise<number> {
    const stop = new AbortController();
    const heard = { alive: true };
    const started = performance.now();
    const before = this.state;
    this.#running = stop;
    this.workspace.signal = stop.signal;
    this.#world = this.#worldFor(stop.signal, heard);
    const world = this.#world;
    this.#undone = false;
    const work = start(world);
    const left = new Promise<null>((resolve) => {
      stop.signal.addEventListener("abort", () => setTimeout(() => resolve(null), PATIENCE), { once: true });
    });
    let code = await Promise.race([work, left]);
    this.#running = null;
    if (code === null) {
      // Whatever still runs, a driver perhaps, is not waited for: it says nothing more, and its backend is not used again.
      heard.alive = false;
      this.backends.abandon();
      const clear = this.terminal.stderrTTY && this.terminal.env.TERM !== "dumb" ? "\r\x1b[K" : ""; // a progress line
      this.terminal.err(`${clear}stopped; the backend is opened again when it is next wanted\n`);
      code = 130;
    }
    if (!this.#undone && isChanged(before, this.state)) {
      this.#before.push(before);
      if (this.#before.length > MOST_STATES) this.#before.shift();
    }
    if (this.showTime) this.terminal.out(`  took ${duration((performance.now() - started) / 1000)}\n`);
    return code;
  }

  /** Brings back the variables and settings from before the last line that changed them; null where there is none. */
  undo(): SessionState | null {
    const before = this.#before.pop();
    if (!before) return null;
    const now = this.state;
    this.state = before;
    this.#undone = true;
    return now;
  }

  /** Gives a value a name, and is the last result. */
  assign(name: string | null, value: Value): void {
    const variables = new Map(this.state.variables).set("_", value);
    if (name !== null) variables.set(name, value);
    this.state = { ...this.state, variables };
  }

  /** Loads a file of the command line under a name made of its own. */
  async open(path: string): Promise<number> {
    return await this.run(`${nameFor(path)} = load ${JSON.stringify(path)}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.watches.forEach((watch) => watch.stop());
    await this.backends[Symbol.asyncDispose]();
    this.workspace[Symbol.dispose]();
  }

  #worldFor(signal: AbortSignal, heard: { readonly alive: boolean }): Terminal {
    const { terminal, backends } = this;
    return {
      env: terminal.env,
      cwd: terminal.cwd,
      stdinTTY: true, // a session's input is no tensor
      stdoutTTY: terminal.stdoutTTY,
      stderrTTY: terminal.stderrTTY,
      get columns() {
        return terminal.columns;
      },
      runtime: terminal.runtime,
      out: (text) => void (heard.alive && terminal.out(this.#named(text))),
      err: (text) => void (heard.alive && terminal.err(this.#named(text))),
      peakBytes: terminal.peakBytes,
      signal,
      openFirst: backends.open,
      library: terminal.library,
      settings: this.state.settings,
    };
  }

  /** Text with the names of variables instead of temporary files. */
  #named(text: string): string {
    const { folder } = this.workspace;
    if (folder === null || !text.includes(folder)) return text;
    const names = new Map(this.#expected ? [this.#expected] : []);
    for (const [name, value] of this.state.variables) if ("path" in value) names.set(value.path, name);
    return text.replace(pathsIn(folder), (path) => names.get(path) ?? `(${path.split("/").at(-1)})`);
  }

  #explain(error: unknown, world: Terminal): number {
    if (world.signal.aborted) {
      world.err("stopped\n");
      return 130;
    }
    if (!(error instanceof PerformerError)) return explain(error, world);
    world.err(`${plain(error.message, 2000)}\n`);
    return error.exitCode;
  }

  async #statement(line: string): Promise<number> {
    const statement = statementOf(joinedUnlessCode(line), this.commands, [...this.state.variables.keys()]);
    switch (statement.kind) {
      case "nothing":
        return 0;
      case "directive":
        return await runDirective(this, statement.name, statement.rest);
      case "help":
        return await runDirective(this, "help", statement.topic);
      case "command":
        return await this.#command(statement, line);
      case "js":
        return await this.#made(statement, line, `js ${statement.code}`, async () => {
          return await runScript(statement.code, this.#scope, this.#world);
        });
      case "expression":
        return await this.#made(statement, line, statement.text, () => {
          return evaluate(parseExpression(statement.text), this.#scope);
        });
    }
  }

  get #scope() {
    return { variables: this.state.variables, workspace: this.workspace };
  }

  /** A line that is a value. */
  async #made(
    { target, quiet }: { readonly target: string | null; readonly quiet: boolean },
    line: string,
    code: string,
    make: () => Promise<Value>,
  ): Promise<number> {
    const needs = wordsKnown(code, this.state.variables);
    const world = this.#world;
    const value = await make();
    world.signal.throwIfAborted(); // a line that was given up changes nothing any more
    this.assign(target, value);
    if (!quiet) {
      world.out(
        target === null
          ? await showValue(value, world, this.workspace.owns)
          : `${target} = ${summaryOf(value, this.workspace.owns)}\n`,
      );
    }
    if (value.kind === "tensor" && this.workspace.owns(value.path)) {
      const known = needs.some(([, need]) => need.kind === "tensor" && need.path === value.path);
      if (!known) this.record({ kind: "made", line, target: target ?? "made", code, path: value.path, needs });
    } else if (value.kind === "plain" && typeof value.value !== "object") {
      this.record({ kind: "note", line, gave: summaryOf(value, this.workspace.owns) });
    }
    return 0;
  }

  /** Something that a script of the session does again. */
  record(entry: LogEntry): void {
    this.state = { ...this.state, log: this.state.log.with(entry) };
  }

  async #command({ words, target, quiet }: Statement & { kind: "command" }, line: string): Promise<number> {
    const command = this.commands.find(({ name }) => name === words[0].text)!;
    if (command.name === "watch" && words.length > 1 && !words[1].text.startsWith("-")) {
      return await startWatch(this, line);
    }
    if (!COMMANDS.includes(command)) {
      // Words of a session's own commands are its own affair.
      const own = { ...this.#world, assignTo: target, quiet, line } satisfies BuiltinWorld;
      return await execute(words.map(({ text }) => text), own, this.commands);
    }
    const resolved = await resolveWords(words, command, this.#scope);
    return await this.runCommand(command, resolved, { target, quiet, line });
  }

  /** What a command that writes a file finds; the file goes with the session, and the line is not one of its script. */
  async findings(line: readonly string[]): Promise<Record<string, unknown>> {
    const command = this.commands.find(({ name }) => name === line[0])!;
    const words = await resolveWords(
      line.map((text) => ({ text, start: 0, end: 0, quoted: false })),
      command,
      this.#scope,
    );
    let report: Record<string, unknown> = {};
    const world: Terminal = { ...this.#world, found: (found) => void (report = found as Record<string, unknown>) };
    await execute([...words, "-o", this.workspace.newPath(".json"), "--quiet"], world, COMMANDS);
    return report;
  }

  /** Runs a command of the command line, keeps what it finds, and gives it a name. */
  async runCommand(
    command: Command,
    words: readonly string[],
    { target = null, quiet = false, line }: { target?: string | null; quiet?: boolean; line: string },
  ): Promise<number> {
    let report: Record<string, unknown> | null = null;
    const world: Terminal = { ...this.#world, found: (found) => void (report = found as Record<string, unknown>) };
    const given = flagsGiven(command, words.slice(1));
    const output = target !== null && command.makesTensor && !given.has("output") && !given.has("batch")
      ? this.workspace.newPath(".npy")
      : null;
    if (this.terminal.stdoutTTY && given.get("output") === "-") {
      throw new UsageError("Cannot write a tensor to the terminal: name a file, or write y = attend …");
    }
    const complete = [
      ...words,
      ...(output === null ? [] : ["-o", output]),
      ...(quiet && !given.has("quiet") ? ["--quiet"] : []),
    ];
    if (output !== null) this.#expected = [output, target!];
    const code = await execute(complete, world, COMMANDS).finally(() => this.#expected = null);
    world.signal.throwIfAborted();
    if (report !== null || (target !== null && code === 0)) {
      const found: ReportValue = { kind: "report", report: report ?? {}, line: words.join(" ") };
      this.assign(target, output !== null && code === 0 ? await this.#outputOf(output, given, found) : found);
    }
    if (code === 0 || report !== null) {
      const set = Object.entries(this.state.settings).flatMap(([name, text]) => {
        const flag = command.flags.find((own) => own.name === name);
        if (!flag || given.has(name) || (!flag.value && text === "false")) return [];
        return flag.value ? [`--${name}`, text] : [`--${name}`];
      });
      this.record({ kind: "command", line, words: [...complete.filter((word) => word !== "--quiet"), ...set] });
    }
    return code;
  }

  /** The tensor that a command wrote. */
  async #outputOf(
    path: string,
    given: ReadonlyMap<string, string | null>,
    { report }: ReportValue,
  ): Promise<TensorValue> {
    const layout = (given.get("layout") ?? this.state.settings.layout) as "hld" | "lhd" | undefined;
    const value = await loadFile(path, { layout }, this.#world);
    if (value.kind !== "tensor") throw new InputError(`Cannot read "${path}" back: it holds no single tensor`);
    const { heads } = (report.input ?? {}) as { heads?: unknown };
    const split: Record<string, string> = typeof heads === "number" && heads > 1 && value.shape.length <= 2
      ? { heads: String(heads) }
      : {};
    return { ...value, flags: { ...value.flags, ...split }, report };
  }
}

/** What a session's own command is told beside the words. */
export interface BuiltinWorld extends Terminal {
  /** `NAME = …` */
  readonly assignTo: string | null;
  /** … `;` */
  readonly quiet: boolean;
  readonly line: string;
}

const isChanged = (before: SessionState, after: SessionState): boolean => {
  const named = ({ variables }: SessionState) => [...variables].filter(([name]) => name !== "_");
  const [a, b] = [named(before), named(after)];
  return before.settings !== after.settings || a.length !== b.length ||
    b.some(([name, value]) => before.variables.get(name) !== value);
};

/** Files of the session's folder, wherever they stand in a text. */
const pathsIn = (folder: string): RegExp =>
  new RegExp(`${folder.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}/[\\w-]+\\.\\w+`, "g");

/** JavaScript keeps its lines; commands and expressions are one. */
const joinedUnlessCode = (line: string): string => /^\s*([A-Za-z_]\w*\s*=\s*)?js\s/.test(line) ? line : joined(line);
