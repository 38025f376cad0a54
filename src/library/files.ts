/** Files as tensors, and tensors as files. */
import { UsageError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import type { OutputDType } from "../formats/decode.ts";
import { openResidues } from "../formats/fasta.ts";
import { KmerSource, parseKmer } from "../formats/kmer.ts";
import { openContainer } from "../formats/mod.ts";
import { openSink } from "../formats/sink.ts";
import type { TensorView } from "../formats/view.ts";
import type { TensorSource } from "../tensor.ts";
import { asTensor, type Rows, Tensor, type ViewOptions } from "./tensor.ts";

/** How a file is read. */
export interface LoadOptions extends ViewOptions {
  /** Which tensor of a file that holds several. */
  readonly name?: string;
  /** Reads 2-byte elements that the file calls u16 or V2 as bfloat16. */
  readonly dtype?: "bf16";
  /** FASTA or plain text as rows: `"kmer:6"` or `"kmer:6:WINDOW"`, 64 columns per head. */
  readonly encode?: string;
  /** Of the encoder's random vectors. */
  readonly seed?: number;
}

/** The tensors of a file by name. Disposing closes the file. */
export interface TensorSet extends AsyncDisposable {
  /** One tensor. */
  readonly [name: string]: Tensor;
}

const viewOf = ({ heads, layout, rows }: ViewOptions): TensorView => ({
  heads,
  layout,
  rows: rows && { start: rows[0], end: rows[1] },
});

/**
 * Opens one tensor of a .npy, .npz, .safetensors or PyTorch file, or with `encode` a sequence; "-" is standard input. It is read
 * piece by piece whenever attention needs it, never whole. Throws InputError for what cannot be read, UsageError where the file holds
 * several tensors and none is named.
 */
export async function load(path: string, options: LoadOptions = {}): Promise<Tensor> {
  if (options.encode !== undefined) return await encoded(path, options, options.encode);
  const container = await openContainer(path, { dtype: options.dtype });
  try {
    const names = container.members.map(({ name }) => name);
    if (options.name === undefined && names.length > 1) {
      throw new UsageError(
        `Cannot choose a tensor in "${path}": it holds ${names.slice(0, 8).join(", ")}${
          names.length > 8 ? ", …" : ""
        }; give { name } or use loadAll`,
      );
    }
    return await tensorOf(container, options.name, viewOf(options), () => container[Symbol.asyncDispose]());
  } catch (error) {
    await container[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Opens all tensors of a file, or those that are named: `const { q, k, v } = await loadAll("qkv.npz")`. Views apply to each.
 * Throws as `load` does.
 */
export async function loadAll(
  path: string,
  options: Omit<LoadOptions, "name" | "encode" | "seed"> & { readonly names?: readonly string[] } = {},
): Promise<TensorSet> {
  const container = await openContainer(path, { dtype: options.dtype });
  try {
    const names = options.names ?? container.members.filter(({ dtype, shape }) => {
      return dtype !== null && shape.length >= 1 && shape.length <= 4; // what has rows
    }).map(({ name }) => name);
    const set: Record<string, Tensor> = Object.create(null); // names are the file's
    for (const name of names) set[name] = await tensorOf(container, name, viewOf(options));
    return Object.assign(set, { [Symbol.asyncDispose]: () => container[Symbol.asyncDispose]() });
  } catch (error) {
    await container[Symbol.asyncDispose]();
    throw error;
  }
}

async function tensorOf(
  container: Container,
  name: string | undefined,
  view: TensorView,
  close?: () => Promise<void>,
): Promise<Tensor> {
  const open = (view: TensorView): Promise<TensorSource> => container.open(name, view);
  return new Tensor(await open(view), { open, view, data: null }, close);
}

async function encoded(path: string, options: LoadOptions, encode: string): Promise<Tensor> {
  if (options.name !== undefined || options.dtype !== undefined) {
    throw new UsageError("Cannot use encode with name or dtype: a sequence has neither");
  }
  const residues = await openResidues(path);
  const open = (view: TensorView) => {
    const settings = { ...parseKmer(encode), heads: view.heads ?? 1, seed: options.seed ?? 0 };
    return KmerSource.open(path, residues, settings, view.rows);
  };
  try {
    const view = viewOf(options);
    return new Tensor(await open(view), { open, view, data: null }, async () => await residues[Symbol.asyncDispose]());
  } catch (error) {
    await residues[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Writes rows to a .npy, .npz or .safetensors file, by its suffix; "-" is standard output. The file appears under its name when it is
 * complete. @param options.dtype float64 stays float64 unless another is asked for. Throws UsageError for another suffix.
 */
export async function save(path: string, rows: Rows, options: { readonly dtype?: OutputDType } = {}): Promise<void> {
  const source = asTensor(rows);
  const { heads, width, dtype: given } = source.info;
  const dtype = options.dtype ?? (given === "f64" || given === "f16" ? given : "f32");
  await using sink = await openSink(path, { dtype, shape: source.shape, heads, width, layout: source.layout });
  for await (const tile of source.tiles(4096, { precision: dtype === "f64" ? "f64" : "f32" })) await sink.write(tile);
  await sink.finish();
}
