/** Commands that only a session has, as values like those of the command line: help and completion read them in the same way. */
import { openOutput } from "../bytes.ts";
import type { Command, Flag, Terminal } from "../commands/command.ts";
import { wholeNumber } from "../commands/flags.ts";
import { INPUT_FLAGS } from "../commands/input_flags.ts";
import { plotReport } from "../commands/picture.ts";
import { plotStyle } from "../commands/plotting.ts";
import { UsageError } from "../errors.ts";
import { nearest } from "../words.ts";
import { evaluate } from "./evaluate.ts";
import { parseExpression } from "./expression.ts";
import { saveTensor } from "./javascript.ts";
import { loadFile, nameFor, type Reading } from "./load.ts";
import { plotValue } from "./plotting.ts";
import type { BuiltinWorld, Session } from "./session.ts";
import { summaryOf } from "./show.ts";
import { kindWord, type Value } from "./values.ts";
import { startWatch } from "./watch.ts";

const READING: readonly Flag[] = [
  ...INPUT_FLAGS.filter(({ name }) => ["heads", "layout", "dtype", "encode", "rows"].includes(name)),
  { name: "seed", value: "N", summary: "seed of the encoder", parse: wholeNumber(0) },
];

/** What a session is asked for beside the line's words. */
const worldOf = (terminal: Terminal) => terminal as BuiltinWorld;

/** The commands of a session. Adding one is a value here. */
export function builtinsFor(session: Session): Command[] {
  const valueOf = async (text: string | undefined): Promise<Value> => {
    const { variables } = session.state;
    if (text === undefined || text === "_") {
      const last = variables.get("_");
      if (!last) throw new UsageError("There is no last result yet: run something first, or name a variable");
      return last;
    }
    return await evaluate(parseExpression(text), { variables, workspace: session.workspace });
  };

  const load: Command = {
    name: "load",
    summary: "a file as a variable: a tensor, queries with keys and values, a checkpoint, or a saved report",
    arguments: [{ name: "FILE", summary: ".npy, .npz, .safetensors, .pt, .json, FASTA (with --encode)" }],
    flags: READING,
    examples: ["x = load input.npy --heads 8", "qkv = load qkv.npz", "genome = load genome.fa --encode kmer:6"],
    async run({ arguments: [path], flags, sources }, terminal) {
      const { assignTo, quiet } = worldOf(terminal);
      const layout = sources.layout === "default" ? undefined : flags.layout;
      const value = await loadFile(path, { ...flags, layout } as Reading, terminal);
      const name = assignTo ?? nameFor(path);
      session.assign(name, value);
      if (!quiet) terminal.out(`${name} = ${summaryOf(value, session.workspace.owns)}\n`);
      return 0;
    },
  };

  const save: Command = {
    name: "save",
    summary: "a variable as a file: tensors as .npy, .npz or .safetensors, anything else as .json",
    arguments: [{ name: "VALUE", summary: "a variable or an expression" }, { name: "FILE", summary: "what to write" }],
    flags: [],
    examples: ["save y y.npy", "save r report.json"],
    async run({ arguments: [text, path] }, terminal) {
      const value = await valueOf(text);
      if (value.kind === "tensor") {
        await saveTensor(path, value, session.workspace);
        session.record({ kind: "saved", line: worldOf(terminal).line, value, path });
      } else if (value.kind === "report" || value.kind === "plain") {
        if (!path.endsWith(".json")) {
          throw new UsageError(`Cannot write a ${kindWord(value)} to "${path}": expected a name that ends in .json`);
        }
        const inner = value.kind === "report" ? value.report : value.value;
        await using sink = openOutput(path);
        await sink.write(new TextEncoder().encode(`${JSON.stringify(inner, null, 2)}\n`), 0);
        await sink.commit();
      } else throw new UsageError(`Cannot write a ${kindWord(value)}: name one of its tensors`);
      if (!worldOf(terminal).quiet) terminal.out(`written to ${path}\n`);
      return 0;
    },
  };

  const plot: Command = {
    name: "plot",
    summary:
      "a picture of the last result or a variable: error against m, speed against L, errors of rows, numbers, weights",
    arguments: [{
      name: "VALUE",
      summary: "a variable or an expression; the last result unless given",
      optional: true,
    }],
    flags: [
      { name: "svg", value: "FILE", summary: "write the picture as SVG instead" },
      { name: "png", value: "FILE", summary: "write it as PNG instead" },
      { name: "heat", summary: "the attention weights of a tensor's first rows, exact and by features" },
      { name: "head", value: "H", summary: "head of --heat, from 0", parse: wholeNumber(0) },
      { name: "ascii", summary: "draw in ASCII" },
      { name: "no-color", summary: "no colours" },
    ],
    examples: ["plot", "plot r --svg error.svg", "plot x", "plot x --heat --head 2"],
    async run({ arguments: [text], flags, ...invocation }, terminal) {
      if (flags.svg !== undefined && flags.png !== undefined) {
        throw new UsageError("Cannot use --svg together with --png");
      }
      const file = (flags.svg ?? flags.png ?? null) as string | null;
      const style = plotStyle(
        { ...invocation, arguments: [], flags: { ...flags, format: "text", plot: true } },
        terminal,
      )!;
      if (flags.heat) {
        if (file !== null) throw new UsageError("Cannot use --heat with a file: write figure heatmap x -o heat.svg");
        const words = [
          "figure",
          "heatmap",
          text ?? "_",
          "--size",
          "24",
          ...(flags.head === undefined ? [] : ["--head", String(flags.head)]),
        ];
        terminal.out(await plotReport(await session.findings(words), style));
        return 0;
      }
      terminal.out(await plotValue(await valueOf(text), { style, file, workspace: session.workspace }));
      return 0;
    },
  };

  const del: Command = {
    name: "del",
    summary: "forgets variables; files stay",
    arguments: [{ name: "NAME", summary: "a variable" }],
    flags: [],
    examples: ["del x"],
    async run({ arguments: [name] }) {
      const variables = new Map(session.state.variables);
      if (!variables.delete(name)) {
        const near = nearest(name, [...variables.keys()]);
        throw new UsageError(`Unknown variable "${name}"${near ? `: did you mean ${near}?` : ""}`);
      }
      session.state = { ...session.state, variables };
      return 0;
    },
  };

  const watch: Command = {
    name: "watch",
    summary:
      "runs a command again whenever a file of it or a setting changes, with its error as a line of bars; :unwatch ends it",
    arguments: [{ name: "COMMAND", summary: "attend, compare or tune, with its arguments" }],
    flags: [],
    examples: ["watch attend x --features positive", ":unwatch"],
    run: (_, terminal) => startWatch(session, worldOf(terminal).line),
  };

  return [load, save, plot, watch, del];
}
