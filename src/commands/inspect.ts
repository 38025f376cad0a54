/** `performer inspect FILE`: what is in a tensor file. */
import { bytesText, count, plain } from "../words.ts";
import type { Command } from "./command.ts";
import { MODEL_FILES, SEQUENCE_FILES, TENSOR_FILES } from "./file_names.ts";
import { COMMON_FLAGS } from "./flags.ts";
import { CONFIG_FLAG } from "./model_flags.ts";

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
    ...COMMON_FLAGS,
  ],
  examples: ["performer inspect input.npy", "performer inspect model.pt --json | jq .model"],
  async run({ arguments: [path], flags }, terminal) {
    const { describeFile } = await import("../formats/mod.ts");
    const found = await describeFile(path);
    const { inspectModel, modelWords } = await import("./inspect_model.ts");
    const model = await inspectModel(found, flags.config as string | undefined);
    const report = { schema: "performer-inspect/1", ...found, model };
    terminal.found?.(report);
    if (flags.json) {
      terminal.out(JSON.stringify(report, null, 2) + "\n");
      return 0;
    }
    if (flags.quiet) return 0;
    const lines = [`${found.path} · ${found.format} · ${bytesText(found.bytes)}`];
    for (const { name, dtype, shape, order, bytes } of found.tensors) {
      lines.push(
        `  ${name || "(array)"}  ${dtype} [${shape.join(", ")}]${order === "F" ? " Fortran order" : ""} · ${
          bytesText(bytes)
        }`,
      );
    }
    for (const { name, length } of found.records ?? []) lines.push(`  ${name}  ${count(length)} residues`);
    if (model) lines.push(...modelWords(model));
    for (const [key, value] of Object.entries(found.metadata)) lines.push(`  metadata ${key} = ${value.slice(0, 200)}`);
    terminal.out(lines.map((line) => plain(line)).join("\n") + "\n");
    return 0;
  },
};
