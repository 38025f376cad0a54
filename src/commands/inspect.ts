/** `performer inspect FILE`: what is in a tensor file. */
import { bytesText, count } from "../words.ts";
import type { Command } from "./command.ts";
import { COMMON_FLAGS } from "./flags.ts";

export const inspect: Command = {
  name: "inspect",
  summary: "what is in a .npy, .npz, .safetensors, PyTorch or FASTA file",
  arguments: [{ name: "FILE", summary: "the file, or - for stdin" }],
  flags: COMMON_FLAGS,
  examples: ["performer inspect input.npy", "performer inspect qkv.safetensors --json | jq .tensors"],
  async run({ arguments: [path], flags }, terminal) {
    const { describeFile } = await import("../formats/mod.ts");
    const found = await describeFile(path);
    if (flags.json) {
      terminal.out(JSON.stringify({ schema: "performer-inspect/1", ...found }, null, 2) + "\n");
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
    for (const [key, value] of Object.entries(found.metadata)) lines.push(`  metadata ${key} = ${value.slice(0, 200)}`);
    terminal.out(lines.join("\n") + "\n");
    return 0;
  },
};
