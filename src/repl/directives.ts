/** Lines that begin with a colon: they are about the session itself. */
import { writeText } from "../bytes.ts";
import type { Flag } from "../commands/command.ts";
import { PER_RUN } from "../commands/config.ts";
import { parseValue } from "../commands/parse.ts";
import { UsageError } from "../errors.ts";
import { wrapped } from "../plots/style.ts";
import { nearest } from "../words.ts";
import { FUNCTIONS } from "./functions.ts";
import { scriptOf } from "./script.ts";
import type { Session } from "./session.ts";
import { summaryOf } from "./show.ts";
import { wordsOf } from "./words.ts";

/** A directive: its words after the name, what it is for, and what it does. Returns an exit code. */
export interface Directive {
  readonly usage: string;
  readonly summary: string;
  run(session: Session, rest: string): Promise<number> | number;
}

/** Columns of names in the overview. */
const USAGE = 22;

/** Adding a directive is a row here. */
export const DIRECTIVES: Readonly<Record<string, Directive>> = {
  help: {
    usage: "[TOPIC]",
    summary: "what there is; a command, a function, a feature map, any topic of performer help",
    run: help,
  },
  vars: { usage: "", summary: "the variables", run: listVariables },
  set: {
    usage: "[FLAG [VALUE]]",
    summary: "a flag for all commands to come: :set causal on, :set m 512; alone: what is set",
    run: set,
  },
  unset: { usage: "FLAG", summary: "takes it back", run: unset },
  backend: { usage: "[LIST]", summary: "the same as :set backend; alone: what is open", run: backend },
  undo: { usage: "", summary: "takes back the last change of variables or settings", run: undo },
  time: { usage: "on|off", summary: "say how long lines take", run: time },
  unwatch: { usage: "", summary: "ends what watch began", run: unwatch },
  tour: { usage: "[STEP]", summary: "a guided tour of the paper, on live data", run: tour },
  "save-script": {
    usage: "FILE",
    summary: "the session as a shell script that gives the same numbers",
    run: saveScript,
  },
  quit: { usage: "", summary: "leaves; so does Ctrl-D", run: quit },
};

/** Runs a directive. Throws UsageError for one that is not known. */
export async function runDirective(session: Session, name: string, rest: string): Promise<number> {
  const directive = DIRECTIVES[name === "q" || name === "exit" ? "quit" : name === "h" || name === "" ? "help" : name];
  if (directive) return await directive.run(session, rest);
  const near = nearest(name, Object.keys(DIRECTIVES));
  throw new UsageError(
    `Unknown directive ":${name}": ${near ? `did you mean :${near}? ` : ""}there are ${
      Object.keys(DIRECTIVES).map((known) => `:${known}`).join(", ")
    }`,
  );
}

async function help(session: Session, topic: string): Promise<number> {
  const { world, commands } = session;
  if (topic === "") {
    world.out(overview(session));
    return 0;
  }
  const known = FUNCTIONS[topic];
  if (known) {
    world.out(`${known.usage}\n  ${known.summary}\n`);
    return 0;
  }
  const directive = topic.startsWith(":") ? DIRECTIVES[topic.slice(1)] : undefined;
  if (directive) {
    world.out(`${topic} ${directive.usage}\n  ${directive.summary}\n`);
    return 0;
  }
  if (session.state.variables.has(topic)) {
    world.out(`${topic} = ${summaryOf(session.state.variables.get(topic)!, session.workspace.owns)}\n`);
    return 0;
  }
  const { execute } = await import("../commands/main.ts");
  const own = commands.find(({ name }) => name === topic);
  return await execute(own ? [topic, "--help"] : ["help", topic], world, commands);
}

function overview({ commands, world }: Session): string {
  const line = (usage: string, summary: string) => {
    const parts = wrapped(summary, Math.max(20, Math.min(120, world.columns) - USAGE - 4));
    return parts.map((part, i) => `  ${(i === 0 ? usage : "").padEnd(USAGE)} ${part}\n`).join("");
  };
  const prose = (text: string) => wrapped(text, Math.max(40, Math.min(120, world.columns) - 1)).join("\n") + "\n";
  return prose(
    "A line is a command, an expression, NAME = either, or js CODE. A variable can stand wherever a command takes a file or a number.",
  ) +
    `\nCommands (?attend tells more)\n${
      commands.map(({ name, arguments: words, summary }) => {
        return line([name, ...words.map((word) => word.optional ? `[${word.name}]` : word.name)].join(" "), summary);
      }).join("")
    }\nExpressions\n${
      line("x[0:4096] * 0.5", "rows and arithmetic; x[a:b, c:d] takes columns as well, x.head(3) one head")
    }${line("qkv.q, r.error.skill", "parts of files and of reports; _ is the last result")}${
      Object.values(FUNCTIONS).map(({ usage, summary }) => line(usage, summary)).join("")
    }${line("js CODE", "JavaScript, with the library and the variables; await and return work")}\nThe session\n${
      Object.entries(DIRECTIVES).map(([name, { usage, summary }]) => line(`:${name} ${usage}`.trimEnd(), summary)).join(
        "",
      )
    }${line("?TOPIC", "the same as :help TOPIC")}\n` +
    prose(
      "Keys: TAB completes, Up walks the lines that begin as this one, Ctrl-R searches, Ctrl-C stops a line, Ctrl-D leaves. " +
        "A line that ends with \\ or inside brackets goes on; one that ends with ; shows nothing.",
    );
}

function listVariables(session: Session): number {
  const { state: { variables }, world } = session;
  if (variables.size === 0) world.out("no variables; x = load FILE makes one\n");
  const wide = Math.max(...[...variables.keys()].map((name) => name.length));
  for (const [name, value] of variables) {
    world.out(`  ${name.padEnd(wide)}  ${summaryOf(value, session.workspace.owns)}\n`);
  }
  return 0;
}

/** The flag of a name, by its long or short form, in any command. */
function flagNamed({ commands }: Session, given: string): Flag[] {
  const name = given.replace(/^--?/, "");
  const flags = commands.flatMap(({ flags }) => flags).filter((flag) => flag.name === name || flag.short === name);
  if (flags.length > 0) {
    if (PER_RUN.has(flags[0].name)) {
      throw new UsageError(`Cannot set --${flags[0].name} for a session: it belongs to one run`);
    }
    return flags;
  }
  const all = [...new Set(commands.flatMap(({ flags }) => flags.map((flag) => flag.name)))].filter((known) =>
    !PER_RUN.has(known)
  );
  const near = nearest(name, all);
  throw new UsageError(
    `Unknown flag "${given}": ${near ? `did you mean ${near}? ` : ""}expected the name of a flag, such as causal`,
  );
}

async function set(session: Session, rest: string): Promise<number> {
  const { settings } = session.state;
  const words = wordsOf(rest).map(({ text }) => text);
  if (words.length === 0) {
    const entries = Object.entries(settings);
    if (entries.length === 0) session.world.out("nothing is set; :set causal on, for example\n");
    for (const [name, value] of entries) session.world.out(`  ${name}  ${value}\n`);
    return 0;
  }
  if (words.length > 2) throw new UsageError("Cannot set this: write :set FLAG VALUE");
  const flags = flagNamed(session, words[0]);
  const { name } = flags[0];
  const switches = flags.every((flag) => !flag.value);
  const spelled: Record<string, string> = { on: "true", yes: "true", off: "false", no: "false" };
  const said = words[1] === undefined
    ? (switches ? "true" : undefined)
    : switches
    ? spelled[words[1]] ?? words[1]
    : words[1];
  if (said === undefined) throw new UsageError(`Missing value: write :set ${name} ${flags[0].value}`);
  // One command at least must take it.
  let refusal: unknown;
  const taken = flags.some((flag) => {
    try {
      parseValue(flag, said, `:set ${name}`);
      return true;
    } catch (error) {
      refusal ??= error;
      return false;
    }
  });
  if (!taken) throw refusal;
  session.state = { ...session.state, settings: { ...settings, [name]: said } };
  session.watches.forEach((watch) => watch.touch());
  return 0;
}

function unset(session: Session, rest: string): number {
  const { name } = flagNamed(session, rest)[0];
  if (!(name in session.state.settings)) throw new UsageError(`Cannot unset ${name}: it is not set`);
  const { [name]: _gone, ...settings } = session.state.settings;
  session.state = { ...session.state, settings };
  session.watches.forEach((watch) => watch.touch());
  return 0;
}

async function backend(session: Session, rest: string): Promise<number> {
  if (rest !== "") return await set(session, `backend ${rest}`);
  const { names } = session.backends;
  session.world.out(
    `${session.state.settings.backend ?? "auto"}; ${
      names.length > 0 ? `open: ${names.join(", ")}` : "none is open yet"
    }\n`,
  );
  return 0;
}

function undo(session: Session): number {
  const now = session.undo();
  if (!now) throw new UsageError("There is nothing to undo");
  const { variables, settings } = session.state;
  const gone = [...now.variables.keys()].filter((name) => name !== "_" && !variables.has(name));
  const back = [...variables].filter(([name, value]) => name !== "_" && now.variables.get(name) !== value).map((
    [name],
  ) => name);
  const changed = [...new Set([...Object.keys(settings), ...Object.keys(now.settings)])].filter((name) =>
    settings[name] !== now.settings[name]
  );
  const words = [
    ...gone.map((name) => `${name} is gone`),
    ...back.map((name) => `${name} is what it was`),
    ...changed.map((name) => `${name} is ${settings[name] ?? "not set"}`),
  ];
  session.world.out(`${words.join(", ")}\n`);
  if (changed.length > 0) session.watches.forEach((watch) => watch.touch());
  return 0;
}

function time(session: Session, rest: string): number {
  if (rest !== "on" && rest !== "off" && rest !== "") {
    throw new UsageError(`Cannot use :time ${rest}: expected on or off`);
  }
  session.showTime = rest === "" ? !session.showTime : rest === "on";
  return 0;
}

function unwatch(session: Session): number {
  if (session.watches.length === 0) throw new UsageError("Nothing is watched");
  session.watches.forEach((watch) => watch.stop());
  session.watches = [];
  return 0;
}

async function saveScript(session: Session, rest: string): Promise<number> {
  const [path] = wordsOf(rest).map(({ text }) => text);
  if (path === undefined) throw new UsageError("Missing FILE: write :save-script run.sh");
  const { state: { log }, terminal, workspace } = session;
  if (log.length === 0) throw new UsageError("There is nothing to save yet: no command has run");
  await writeText(path, scriptOf(log.entries, terminal.cwd, (file) => workspace.owns(file)), { executable: true });
  session.world.out(`written to ${path}; bash ${path} runs it\n`);
  return 0;
}

async function tour(session: Session, rest: string): Promise<number> {
  const { runTour } = await import("./tour.ts");
  return await runTour(session, rest);
}

function quit(session: Session): number {
  session.ended = true;
  return 0;
}
