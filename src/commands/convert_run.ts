/** The work of `convert`: choose tensors, write them one after the other, say what was written. */
import { writeTensors, type WrittenTensor } from "../formats/archive.ts";
import type { Container, Member } from "../formats/container.ts";
import { encode, type FloatDType } from "../formats/encode.ts";
import { openContainer } from "../formats/mod.ts";
import { outputFormat } from "../formats/sink.ts";
import { bytesText, count } from "../words.ts";
import type { Invocation, Terminal } from "./command.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";

/** Names that performer-pytorch ≥ 1.0.9 gives to tensors that it saves under their own name too. */
const SECOND_NAME = /(^|\.)proj_updater\.instance\./;
const FLOATS: readonly string[] = ["f16", "bf16", "f32", "f64"];

/** Raised when a key of the JSON changes its meaning or goes away. */
const SCHEMA = "performer-convert/1";

/** Runs `performer convert`; returns the exit code. */
export async function runConvert(invocation: Invocation, terminal: Terminal): Promise<number> {
  const { arguments: [input, output], flags } = invocation;
  const format = formatOf(invocation);
  const toStdout = output !== "-";
  const lines = linesOf(invocation, terminal, SCHEMA, toStdout);
  outputFormat(output); // refuses an unknown suffix before anything is read
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
  const listed = tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
  const report = { schema: SCHEMA, command: "convert", path: output, bytes, tensors: listed };
  if (lines) {
    for (const tensor of listed) lines.say("tensor", tensor);
    lines.end(report);
    return 0;
  }
  if (format === "json") {
    if (toStdout) terminal.out(jsonText(report));
    else terminal.err(jsonText(report));
    return 0;
  }
  if (flags.quiet || !toStdout) return 0;
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
