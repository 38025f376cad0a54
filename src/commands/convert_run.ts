/** The work of `convert`: choose tensors, write them one after the other, say what was written. */
import { UsageError } from "../errors.ts";
import { writeTensors, type WrittenTensor } from "../formats/archive.ts";
import type { Container, Member } from "../formats/container.ts";
import { encode, type FloatDType } from "../formats/encode.ts";
import { openContainer } from "../formats/mod.ts";
import { outputFormat } from "../formats/sink.ts";
import { bytesText, count } from "../words.ts";
import type { Invocation, Terminal } from "./command.ts";

/** Names that performer-pytorch ≥ 1.0.9 gives to tensors that it saves under their own name too. */
const SECOND_NAME = /(^|\.)proj_updater\.instance\./;
const FLOATS: readonly string[] = ["f16", "bf16", "f32", "f64"];

/** Runs `performer convert`; returns the exit code. */
export async function runConvert({ arguments: [input, output], flags }: Invocation, terminal: Terminal) {
  outputFormat(output); // refuses an unknown suffix before anything is read
  if (input === "-" && terminal.stdinTTY) {
    throw new UsageError("Cannot read tensors from the terminal: pipe a file in, or name one");
  }
  await using container = await openContainer(input);
  const members = chosen(container, flags.tensor as string[] | undefined, flags["drop-aliases"] === true);
  const overflows = new Map<string, number>();
  const tensors = members.map((member) => {
    return written(container, member, flags.dtype as FloatDType | undefined, overflows, terminal.signal);
  });
  const bytes = await writeTensors(output, tensors, container.metadata);
  for (const [name, number] of overflows) {
    const what = number === 1 ? "1 number" : `${count(number)} numbers`;
    terminal.err(`warning: ${what} of "${name}" became infinite, too large for ${flags.dtype}\n`);
  }
  if (output === "-") return 0;
  if (flags.json) {
    const listed = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
    terminal.out(
      JSON.stringify({ schema: "performer-convert/1", path: output, bytes, tensors: listed }, null, 2) + "\n",
    );
    return 0;
  }
  if (flags.quiet) return 0;
  const plural = tensors.length === 1 ? "" : "s";
  terminal.out(`${output} · ${count(tensors.length)} tensor${plural} · ${bytesText(bytes)}\n`);
  return 0;
}

function chosen(container: Container, names: readonly string[] | undefined, dropAliases: boolean): readonly Member[] {
  const members = names
    ? [...new Set(names)].map((name) => container.member(name))
    : container.members.filter(({ name, sameAs }) => {
      return !(dropAliases && sameAs !== undefined && SECOND_NAME.test(name));
    });
  // Before anything is written: a tensor of a type that cannot be read stops the whole.
  for (const { name } of members) container.requireReadable(name);
  return members;
}

function written(
  container: Container,
  { name, dtype, shape }: Member,
  wanted: FloatDType | undefined,
  overflows: Map<string, number>,
  signal: AbortSignal,
): WrittenTensor {
  const given = dtype!;
  const converted = wanted !== undefined && wanted !== given && FLOATS.includes(given);
  async function* pieces(): AsyncGenerator<Uint8Array> {
    if (!converted) {
      for await (const piece of container.bytes(name)) {
        signal.throwIfAborted();
        yield piece;
      }
      return;
    }
    for await (const numbers of container.numbers(name)) {
      signal.throwIfAborted();
      const encoded = encode(numbers, wanted!);
      if (encoded.overflows > 0) overflows.set(name, (overflows.get(name) ?? 0) + encoded.overflows);
      yield encoded.bytes;
    }
  }
  return { name: name || "out", dtype: converted ? wanted : given, shape, pieces };
}
