/**
 * Writes ONNX models: the small part of onnx.proto that a graph of float32 tensors needs, as protobuf bytes.
 *
 * Field numbers are those of `onnx/onnx.proto` (github.com/onnx/onnx, IR version 8): they never change once published. A message is
 * a list of fields, each a varint key `number · 8 + wire type` and a value; wire type 0 is a varint, 2 is a length and that
 * many bytes (protobuf.dev/programming-guides/encoding), 5 is four bytes.
 */

/** IR 8 and opset 18 are read by every onnxruntime since 1.14 (2023); FusedMatMul is onnxruntime's own. */
const IR_VERSION = 8;
const OPSETS = [["", 18], ["com.microsoft", 1]] as const;

/** TensorProto.DataType. */
const FLOAT = 1;
const INT64 = 7;

/** A whole number is written as INT, a list of them as INTS, `{ float }` as FLOAT. */
export type Attribute = number | readonly number[] | { readonly float: number };

/** Sizes of a tensor; a name stands for a size that is known when the graph runs. */
export type Dims = readonly (number | string)[];

interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  readonly domain: string;
}

/** One protobuf message being written. */
class Message {
  readonly #parts: Uint8Array[] = [];

  /** A varint field; negative numbers take ten bytes, as in two's complement of 64 bits. */
  integer(field: number, value: number): this {
    this.#parts.push(varint(field * 8), varint(value));
    return this;
  }

  float(field: number, value: number): this {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    this.#parts.push(varint(field * 8 + 5), bytes);
    return this;
  }

  bytes(field: number, value: Uint8Array): this {
    this.#parts.push(varint(field * 8 + 2), varint(value.length), value);
    return this;
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  /** `value` as it is now. Its parts are not joined first: the weights of a layer are copied once, by the outermost `encode`. */
  message(field: number, value: Message): this {
    this.#parts.push(varint(field * 8 + 2), varint(value.#length), ...value.#parts);
    return this;
  }

  get #length(): number {
    return this.#parts.reduce((sum, part) => sum + part.length, 0);
  }

  encode(): Uint8Array {
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}

/** Seven bits a byte, lowest first; all but the last have the high bit set. */
function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** A graph under construction. Inputs and outputs are named by the caller, constants and results `_0`, `_1` … */
export class Graph {
  readonly #nodes: Node[] = [];
  readonly #inputs: Message[] = [];
  readonly #outputs: Message[] = [];
  readonly #constants: Message[] = [];
  readonly #known = new Map<string, string>();
  /** Names of results that are outputs. */
  readonly #public = new Map<string, string>();
  #made = 0;

  constructor(readonly name: string) {}

  /** Declares a float32 input and returns its name. */
  input(name: string, dims: Dims): string {
    this.#inputs.push(valueInfo(name, dims));
    return name;
  }

  /** Makes `value`, a result of `node`, the float32 output called `name`. */
  output(name: string, value: string, dims: Dims): void {
    this.#public.set(value, name);
    this.#outputs.push(valueInfo(name, dims));
  }

  /** A float32 constant of `dims`; a plain number is a scalar, and equal scalars are one constant. Read by `encode`. */
  constant(value: number | Float32Array, dims: readonly number[] = []): string {
    const data = typeof value === "number" ? Float32Array.of(value) : value;
    const make = () => this.#tensor(FLOAT, dims, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return typeof value === "number" ? this.#once(`${value}`, make) : make();
  }

  /** A list of whole numbers (shapes, axes), `[n]` of int64. */
  integers(values: readonly number[]): string {
    const data = BigInt64Array.from(values, BigInt);
    return this.#once(`[${values}]`, () => this.#tensor(INT64, [values.length], new Uint8Array(data.buffer)));
  }

  /** Applies an operator with one result and returns the result's name. */
  node(
    op: string,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = "",
  ): string {
    return this.nodes(op, 1, inputs, attributes, domain)[0];
  }

  /** The same with `count` results. */
  nodes(
    op: string,
    count: number,
    inputs: readonly string[],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain = "",
  ): string[] {
    const outputs = Array.from({ length: count }, () => `_${this.#made++}`);
    this.#nodes.push({ op, inputs, outputs, attributes, domain });
    return outputs;
  }

  /** The ModelProto. */
  encode(): Uint8Array {
    const graph = new Message();
    const name = (value: string) => this.#public.get(value) ?? value;
    for (const node of this.#nodes) graph.message(1, nodeProto(node, name));
    graph.text(2, this.name);
    for (const tensor of this.#constants) graph.message(5, tensor);
    for (const input of this.#inputs) graph.message(11, input);
    for (const output of this.#outputs) graph.message(12, output);
    const model = new Message().integer(1, IR_VERSION).text(2, "performer").message(7, graph);
    for (const [domain, version] of OPSETS) model.message(8, new Message().text(1, domain).integer(2, version));
    return model.encode();
  }

  #once(key: string, make: () => string): string {
    const name = this.#known.get(key) ?? make();
    this.#known.set(key, name);
    return name;
  }

  /** TensorProto: dims = 1, data_type = 2, name = 8, raw_data = 9 (little-endian). */
  #tensor(type: number, dims: readonly number[], raw: Uint8Array): string {
    const name = `_${this.#made++}`;
    const tensor = new Message();
    for (const size of dims) tensor.integer(1, size);
    this.#constants.push(tensor.integer(2, type).text(8, name).bytes(9, raw));
    return name;
  }
}

/** NodeProto: input = 1, output = 2, op_type = 4, attribute = 5, domain = 7. */
function nodeProto(node: Node, name: (value: string) => string): Message {
  const message = new Message();
  for (const input of node.inputs) message.text(1, name(input));
  for (const output of node.outputs) message.text(2, name(output));
  message.text(4, node.op);
  for (const [key, value] of Object.entries(node.attributes)) message.message(5, attributeProto(key, value));
  return node.domain ? message.text(7, node.domain) : message;
}

/** AttributeProto: name = 1, f = 2, i = 3, ints = 8, type = 20 (FLOAT = 1, INT = 2, INTS = 7). */
function attributeProto(name: string, value: Attribute): Message {
  const attribute = new Message().text(1, name);
  if (typeof value === "number") return attribute.integer(3, value).integer(20, 2);
  if ("float" in value) return attribute.float(2, value.float).integer(20, 1);
  for (const item of value) attribute.integer(8, item);
  return attribute.integer(20, 7);
}

/** ValueInfoProto { name = 1, type = 2 { tensor_type = 1 { elem_type = 1, shape = 2 { dim = 1 { value = 1 | param = 2 } } } } }. */
function valueInfo(name: string, dims: Dims): Message {
  const shape = new Message();
  for (const size of dims) {
    shape.message(1, typeof size === "number" ? new Message().integer(1, size) : new Message().text(2, size));
  }
  const tensor = new Message().integer(1, FLOAT).message(2, shape);
  return new Message().text(1, name).message(2, new Message().message(1, tensor));
}
