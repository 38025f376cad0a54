/** How names of files end, by what is in them: for completion, and to tell a file from a mistyped command. */

/** Tensors that are read and written. */
export const TENSOR_FILES = [".npy", ".npz", ".safetensors"] as const;

/** States (state_file.ts). */
export const STATE_FILES = [".safetensors"] as const;

export const SEQUENCE_FILES = [
  ".fa",
  ".fasta",
  ".fna",
  ".ffn",
  ".faa",
  ".fa.gz",
  ".fasta.gz",
  ".fna.gz",
  ".ffn.gz",
  ".faa.gz",
] as const;

/** Checkpoints. */
export const MODEL_FILES = [".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz"] as const;

/** Whether a name ends in one of these, in letters of either size; any name does where there are none. */
export function endsIn(name: string, ends: readonly string[]): boolean {
  const lower = name.toLowerCase();
  return ends.length === 0 || ends.some((end) => lower.endsWith(end));
}
