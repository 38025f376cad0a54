/** `performer inspect FILE`: what is in a tensor file. */
import { bytesText, count, plain } from "../words.ts";
import type { Command } from "./command.ts";
import { MODEL_FILES, SEQUENCE_FILES, TENSOR_FILES } from "./file_names.ts";
import { COMMON_FLAGS, PLAIN_FORMAT_FLAG } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";
import { CONFIG_FLAG } from "./model_flags.ts";

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-inspect/1";

export const inspect: Command = {
  name: "inspect",
  summary: "what is in a .npy, .npz, .safetensors, PyTorch or FASTA file",
  arguments: [{
    name: "FILE",
    summary: "the file, or - for stdin",
    files: [
      ...TENSOR_FILES,
      ...MODEL_FILES.filter((end) => !(TENSOR_FILES as readonly string[]).includes(end)),
      ...SEQUENCE_FILES,
    ],
  }],
  flags: [
    { ...CONFIG_FLAG, summary: `of a model: ${CONFIG_FLAG.summary}` },
    PLAIN_FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: ["performer inspect input.npy", "performer inspect model.pt --json | jq .model"],
  async run(invocation, terminal) {
    const { arguments: [path], flags } = invocation;
    const format = formatOf(invocation);
    const lines = linesOf(invocation, terminal, SCHEMA);
    const { describeFile } = await import("../formats/mod.ts");
    const found = await describeFile(path);
    const { inspectModel, modelWords } = await import("./inspect_model.ts");
    const model = await inspectModel(found, flags.config as string | undefined);
    const report = { schema: SCHEMA, command: "inspect", ...found, model };
    terminal.found?.(report);
    if (lines) {
      for (const tensor of found.tensors) lines.say("tensor", tensor);
      for (const record of found.records ?? []) lines.say("record", record);
      lines.end(report);
      return 0;
    }
    if (format === "json") {
      terminal.out(jsonText(report));
      return 0;
    }
    if (flags.quiet) return 0;
    const words = [`${found.path} · ${found.format} · ${bytesText(found.bytes)}`];
    for (const { name, dtype, shape, order, bytes } of found.tensors) {
      words.push(
        `  ${name || "(array)"}  ${dtype} [${shape.join(", ")}]${order === "F" ? " Fortran order" : ""} · ${
          bytesText(bytes)
        }`,
      );
    }
    for (const { name, length } of found.records ?? []) words.push(`  ${name}  ${count(length)} residues`);
    if (model) words.push(...modelWords(model));
    for (const [key, value] of Object.entries(found.metadata)) words.push(`  metadata ${key} = ${value.slice(0, 200)}`);
    terminal.out(words.map((line) => plain(line)).join("\n") + "\n");
    return 0;
  },
};
