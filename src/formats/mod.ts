/** File formats by their first bytes. Adding one is a file and its line in FORMATS. */
import { type ByteSource, openFile, spoolStdin, streamStdin } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { Container, type ContainerOptions, ForeignError, type Format } from "./container.ts";
import { looksLikeSequence, openResidues } from "./fasta.ts";
import { npy } from "./npy.ts";
import { npz } from "./npz.ts";
import { safetensors } from "./safetensors.ts";
import { torch } from "./torch.ts";

/** The formats of tensors, in the order they are tried. */
export const FORMATS: readonly Format[] = [npy, npz, safetensors, torch];

/** Opens a tensor file, or standard input for "-" (spooled). Throws InputError for what is none. */
export async function openContainer(path: string, options: ContainerOptions = {}): Promise<Container> {
  return await openSource(path === "-" ? await spoolStdin() : await openFile(path), options);
}

/**
 * Standard input for one pass over its rows in order: a .npy whose rows stand in order is read as it comes, without a copy on
 * disk; anything else is spooled. `inOrder` tells from the shape whether rows of all heads follow each other.
 */
export async function openStream(
  options: ContainerOptions,
  inOrder: (shape: readonly number[]) => boolean,
): Promise<Container> {
  const pipe = await streamStdin();
  if (npy.matches(await headOf(pipe))) {
    const container = await openSource(pipe, options);
    const [{ shape, order }] = container.members;
    if (order === "C" && inOrder(shape)) return container;
  }
  return await openSource(await pipe.spool(), options);
}

/** Opens a tensor file that is already open as bytes, which go with it, also when it is none (InputError). */
export async function openSource(source: ByteSource, options: ContainerOptions = {}): Promise<Container> {
  try {
    return await firstThatFits(source, options);
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw error;
  }
}

async function headOf(source: ByteSource): Promise<Uint8Array> {
  const head = new Uint8Array(Math.min(512, source.byteLength));
  await source.read(head, 0);
  return head;
}

async function firstThatFits(source: ByteSource, options: ContainerOptions): Promise<Container> {
  const head = await headOf(source);
  let foreign = false;
  for (const format of FORMATS.filter((candidate) => candidate.matches(head))) {
    try {
      return new Container(format.name, source, await format.open(source), options);
    } catch (error) {
      if (!(error instanceof ForeignError)) throw error;
      foreign = true;
    }
  }
  if (foreign) {
    throw new InputError(
      `Cannot read "${source.path}": it is a zip with neither .npy members nor data.pkl, expected an .npz or a PyTorch checkpoint`,
    );
  }
  if (head.length === 0) throw new InputError(`Cannot read "${source.path}": it is empty`);
  const hint = looksLikeSequence(head) ? "; for a sequence add --encode kmer:6" : "";
  throw new InputError(
    `Cannot read "${source.path}": expected .npy, .npz, .safetensors or a PyTorch checkpoint${hint}`,
  );
}

/** What `inspect` says of a file. */
export interface FileDescription {
  readonly path: string;
  readonly format: string;
  readonly bytes: number;
  readonly tensors: readonly {
    name: string;
    dtype: string;
    shape: readonly number[];
    order: "C" | "F";
    bytes: number;
  }[];
  /** Sequences: the records. */
  readonly records?: readonly { name: string; length: number }[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** Reads headers only (a sequence file is read whole to count its residues). */
export async function describeFile(path: string): Promise<FileDescription> {
  if (path !== "-") {
    await using source = await openFile(path);
    if (looksLikeSequence(await headOf(source))) {
      await using residues = await openResidues(path);
      const records = residues.records.map(({ name, length }) => ({ name, length }));
      return { path, format: residues.format, bytes: source.byteLength, tensors: [], records, metadata: {} };
    }
  }
  await using container = await openContainer(path, {});
  const tensors = container.members.map(({ name, typeName, dtype, shape, order, byteLength }) => {
    return { name, dtype: dtype ?? typeName, shape, order, bytes: byteLength };
  });
  return {
    path: container.path,
    format: container.format,
    bytes: container.source.byteLength,
    tensors,
    metadata: container.metadata,
  };
}
