/** Reads protobuf wire format, knowing nothing of ONNX: fields in order, messages as bytes. */
export interface Field {
  readonly number: number;
  /** Of a varint or of four bytes. */
  readonly value: number;
  /** Of a length-delimited field. */
  readonly bytes: Uint8Array;
}

export function fieldsOf(message: Uint8Array): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = () => {
    let value = 0n;
    for (let shift = 0n;; shift += 7n) {
      const byte = BigInt(message[at++]);
      value |= (byte & 127n) << shift;
      if (byte < 128n) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < message.length) {
    const key = varint();
    const number = key >> 3;
    if ((key & 7) === 0) {
      fields.push({ number, value: varint(), bytes: new Uint8Array() });
    } else if ((key & 7) === 5) {
      const value = new DataView(message.buffer, message.byteOffset + at, 4).getFloat32(0, true);
      fields.push({ number, value, bytes: message.subarray(at, at += 4) });
    } else if ((key & 7) === 2) {
      const length = varint();
      fields.push({ number, value: length, bytes: message.subarray(at, at += length) });
    } else {
      throw new Error(`Wire type ${key & 7} at byte ${at}`);
    }
  }
  if (at !== message.length) throw new Error(`The message ends at byte ${at} of ${message.length}`);
  return fields;
}

/** The bytes of all fields on a path of field numbers, as in `[7, 1, 4]`: model.graph.node.op_type. */
export function pick(message: Uint8Array, path: readonly number[]): Uint8Array[] {
  const [number, ...rest] = path;
  const found = fieldsOf(message).filter((field) => field.number === number).map(({ bytes }) => bytes);
  return rest.length === 0 ? found : found.flatMap((bytes) => pick(bytes, rest));
}

export const texts = (message: Uint8Array, path: readonly number[]): string[] => {
  return pick(message, path).map((bytes) => new TextDecoder().decode(bytes));
};
