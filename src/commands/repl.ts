/** `performer repl`: an interactive session. */
import type { Command } from "./command.ts";
import { MODEL_FILES, TENSOR_FILES } from "./file_names.ts";
import { COMMON_FLAGS } from "./flags.ts";

export const repl: Command = {
  name: "repl",
  summary:
    "an interactive session: variables, expressions, every command, plots; also scripts, and a tour of the paper",
  arguments: [{
    name: "FILES",
    summary: "files to load first, each under a name made of its own",
    optional: true,
    many: true,
    files: [...TENSOR_FILES, ...MODEL_FILES, ".json"],
  }],
  flags: [
    { name: "command", short: "c", value: "LINE", summary: "run this line and leave; may be given again", many: true },
    { name: "file", short: "f", value: "FILE", summary: "run the lines of a file and leave; - is stdin" },
    { name: "tour", summary: "a guided tour of the paper in ten steps, on live data" },
    { name: "no-history", summary: "neither read nor keep the history of lines" },
    { name: "ascii", summary: "draw in ASCII, as for TERM=dumb and locales other than UTF-8" },
    ...COMMON_FLAGS.filter(({ name }) => name === "quiet" || name === "no-color"),
  ],
  examples: [
    "performer repl genome.npy",
    "performer repl -c 'x = load input.npy --heads 8' -c 'attend x -m 512'",
    "performer repl --tour",
  ],
  async run(invocation, terminal) {
    const { runRepl } = await import("../repl/main.ts");
    return await runRepl(invocation, terminal);
  },
};
