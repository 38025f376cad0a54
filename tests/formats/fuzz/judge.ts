/** What the program makes of a file: right numbers or one InputError, and nothing else. */
import { inspectModel, modelWords } from "../../../src/commands/inspect_model.ts";
import { InputError } from "../../../src/errors.ts";
import type { Container, StoredTensor } from "../../../src/formats/container.ts";
import { describeFile, openContainer } from "../../../src/formats/mod.ts";
import { strides } from "../../../src/formats/view.ts";
import { recognise } from "../../../src/model/recognise.ts";
import { elementsOf, secondReading, type Seen } from "./second.ts";

/** `read`: every tensor; `partly`: some were refused; `refused`: the whole file was. */
export interface Verdict {
  readonly kind: "read" | "partly" | "refused";
  readonly tensors: number;
  /** Tensors whose numbers a second reading confirmed. */
  readonly confirmed: number;
  /** Whether a model was recognised. */
  readonly model: boolean;
}

/** Tensors of a file that are read, and elements of those that are compared one by one. */
const MOST_TENSORS = 40;
const SMALL = 4000;

/**
 * Reads, lists, describes and recognises a file in every way; throws for whatever is a bug. `step` is called before each of the
 * things that the program would do in one go.
 */
export async function judge(
  path: string,
  bytes: Uint8Array,
  step: (name: string) => void = () => {},
): Promise<Verdict> {
  step("inspect");
  const found = await refusedOr(path, () => describeFile(path));
  const model = found && await inspectModel(found, undefined);
  if (model) modelWords(model).join("\n");
  JSON.stringify({ found, model });
  step("read");
  const container = await refusedOr(path, () => openContainer(path));
  if ((container === null) !== (found === null) && found?.records === undefined) {
    throw new Error("inspect and a reader do not agree on whether it is a file of tensors");
  }
  if (!container) return { kind: "refused", tensors: 0, confirmed: 0, model: false };
  await using _container = container;
  // Fewer tensors than inspect looks at.
  if (!model) await refusedOr(path, async () => recognise(path, container.members));
  const seen = new Map(secondReading(bytes)?.map((array) => [array.name, array]));
  let [tensors, confirmed, refused] = [0, 0, 0];
  for (const stored of container.contents.tensors.slice(0, MOST_TENSORS)) {
    const read = await refusedOr(path, () => readTensor(container, stored, seen.get(stored.name), step));
    if (!read) refused++;
    else tensors++;
    if (read?.confirmed) confirmed++;
  }
  return { kind: refused === 0 ? "read" : "partly", tensors, confirmed, model: typeof model?.family === "string" };
}

/** What `act` gives, or null where it is refused as bad input, in words that name the file. */
async function refusedOr<T>(path: string, act: () => Promise<T>): Promise<T | null> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    const { message } = error;
    if (!message.includes(path) || !/^Cannot /.test(message)) throw new Error(`does not name the file: ${message}`);
    if (/\.$|\bundefined\b|\bNaN\b|\[object /.test(message.replaceAll(path, ""))) {
      throw new Error(`unclear: ${message}`);
    }
    return null;
  }
}

async function readTensor(
  container: Container,
  stored: StoredTensor,
  seen: Seen | undefined,
  step: (name: string) => void,
) {
  const { name, shape } = stored;
  const count = shape.reduce((a, b) => a * b, 1);
  const { data } = await container.readAll(name, count > SMALL ? "f32" : "f64");
  // What is large is never read twice in one go.
  if (count > SMALL) step("bytes");
  const raw = await collected(container.bytes(name), count > SMALL);
  if (count > SMALL) return { confirmed: false };
  const parts = [];
  for await (const piece of container.numbers(name)) parts.push(...piece);
  const { source, offset } = await stored.locate();
  const placed = new Uint8Array(Math.min(source.byteLength - offset, 2 ** 24));
  if (count > 0) await source.read(placed, offset);
  const { littleEndian, order, strides: steps = strides(shape, order) } = stored;
  const own = elementsOf({ dtype: stored.dtype!, littleEndian, shape, steps, start: 0, bytes: placed });
  for (const [what, numbers] of [["readAll", data], ["numbers", parts]] as const) {
    same(name, what, numbers, own.numbers);
  }
  same(name, "bytes", raw, own.raw);
  if (!seen) return { confirmed: false };
  if (String(seen.shape) !== String(shape) || seen.dtype !== stored.dtype) {
    throw new Error(`"${name}" is another array`);
  }
  const second = elementsOf(seen);
  same(name, "a second reading", data, second.numbers);
  same(name, "the bytes of a second reading", raw, second.raw);
  return { confirmed: true };
}

async function collected(pieces: AsyncIterable<Uint8Array>, drop: boolean): Promise<number[]> {
  const all: number[] = [];
  for await (const piece of pieces) {
    if (piece.length === 0) throw new Error("an empty piece");
    if (!drop) all.push(...piece);
  }
  return all;
}

function same(name: string, what: string, found: ArrayLike<number>, wanted: ArrayLike<number>): void {
  if (found.length !== wanted.length) throw new Error(`${what} of "${name}": ${found.length} of ${wanted.length}`);
  for (let i = 0; i < wanted.length; i++) {
    if (!Object.is(found[i], wanted[i])) throw new Error(`${what} of "${name}": ${found[i]} at ${i}, not ${wanted[i]}`);
  }
}
