/** `performer convert IN OUT`: tensors from one file format to another. */
import type { Command } from "./command.ts";
import { MODEL_FILES, TENSOR_FILES } from "./file_names.ts";
import { COMMON_FLAGS, PLAIN_FORMAT_FLAG } from "./flags.ts";

export const convert: Command = {
  name: "convert",
  summary: "tensors of a checkpoint (.pt, .bin, .ckpt, .npz, .safetensors, .npy) as .safetensors, .npz or .npy",
  arguments: [
    {
      name: "IN",
      summary: "the file to read, or - for stdin; nothing in a checkpoint is executed",
      files: [...MODEL_FILES, ".npy"],
    },
    {
      name: "OUT",
      writes: "file",
      summary: "the file to write: .safetensors, .npz, or .npy for one tensor; - for a .npy on stdout",
      files: TENSOR_FILES,
    },
  ],
  flags: [
    {
      name: "tensor",
      value: "LIST",
      summary: "only these tensors: names with commas between",
      parse: (text) => text.split(",").filter((name) => name !== ""),
    },
    {
      name: "dtype",
      value: "TYPE",
      summary: "convert floating-point tensors; every other is kept as it is",
      choices: ["f16", "bf16", "f32", "f64"],
    },
    { name: "drop-aliases", summary: "leave out second names of the same tensor under proj_updater.instance" },
    PLAIN_FORMAT_FLAG,
    ...COMMON_FLAGS,
  ],
  examples: [
    "performer convert model.pt model.safetensors",
    "performer convert model.ckpt half.safetensors --dtype f16",
    "performer convert model.pt embedding.npy --tensor token_emb.weight",
  ],
  async run(invocation, terminal) {
    const { runConvert } = await import("./convert_run.ts");
    return await runConvert(invocation, terminal);
  },
};
