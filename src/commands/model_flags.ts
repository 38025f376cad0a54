/** Arguments and flags that the commands over whole models share. */
import type { Argument, Flag } from "./command.ts";
import { MODEL_FILES, TENSOR_FILES } from "./file_names.ts";

export const MODEL_ARGUMENT: Argument = {
  name: "MODEL",
  summary: "a checkpoint: .pt, .pth, .bin, .ckpt, .safetensors or .npz; nothing in it is executed",
  files: MODEL_FILES,
};

export const CONFIG_FLAG: Flag = {
  name: "config",
  value: "FILE",
  summary:
    'JSON {"model": {…}} with the constructor arguments that the tensors do not tell, or a config.json of Hugging Face',
  files: [".json"],
};

export const MASK_FLAG: Flag = {
  name: "mask",
  value: "FILE",
  summary: "one number per token, 0 = padding",
  files: TENSOR_FILES,
};

export const PART_FLAG: Flag = {
  name: "part",
  value: "PREFIX",
  summary: "only tensors whose names start so: one model of several in a file",
};
