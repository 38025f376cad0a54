/** Damage: anywhere in the bytes of a file, and where its structure is. */
import { joined, zipOf } from "../torch_made.ts";
import { one, type Pick } from "./random.ts";
import { type Packed, unzipped } from "./second.ts";

/** Bytes that lengths, instructions and signs are made of. */
const TELLING = [0, 1, 0x7f, 0x80, 0xff, ...joined('(.0RQ}]teuqhcbXJM\x81\x85\x86\x87\x8a\x93PK"{[]-9')];

/** One to four bytes or spans changed, removed, doubled, put in, or taken from another file; or the end cut off. */
export function damaged(bytes: Uint8Array, other: Uint8Array, pick: Pick): Uint8Array {
  let copy: Uint8Array = bytes.slice();
  for (let left = 1 + pick(4); left > 0 && copy.length > 0; left--) {
    // Half of the damage goes where the structure is: the beginning and the end.
    const near = Math.min(copy.length, 2048);
    const at = one(pick, [() => pick(copy.length), () => pick(near), () => copy.length - 1 - pick(near)])();
    const length = 1 + pick(16);
    const head = copy.subarray(0, at);
    switch (pick(7)) {
      case 0:
        copy[at] ^= 1 << pick(8);
        break;
      case 1:
        copy[at] = one(pick, TELLING);
        break;
      case 2:
        copy.fill(one(pick, [0, 0xff]), at, at + one(pick, [4, 8]));
        break;
      case 3:
        copy = joined(head, copy.subarray(at + length));
        break;
      case 4:
        copy = joined(head, Uint8Array.from({ length }, () => pick(256)), copy.subarray(at));
        break;
      case 5: {
        const from = pick(other.length);
        copy = joined(head, other.subarray(from, from + pick(200)), copy.subarray(at + pick(200)));
        break;
      }
      default:
        copy = pick(4) === 0 ? head.slice() : joined(head, copy.subarray(Math.max(0, at - length)));
    }
  }
  return copy;
}

/** Numbers that lengths and places are wrongly set to; `now` is the right one. */
const wrong = (pick: Pick, now: number): number =>
  one(pick, [
    0,
    1,
    22,
    30,
    0x7f,
    0xff,
    0xffff,
    0x7fffffff,
    0x80000000,
    0xfffffffe,
    0xffffffff,
    now + 1,
    now - 1,
    2 * now,
  ]);

/** Fields behind each signature of a zip: place and bytes. */
const FIELDS: Readonly<Record<number, readonly (readonly [number, 2 | 4])[]>> = {
  0x04034b50: [[6, 2], [8, 2], [14, 4], [18, 4], [22, 4], [26, 2], [28, 2]],
  0x02014b50: [[8, 2], [10, 2], [16, 4], [20, 4], [24, 4], [28, 2], [30, 2], [32, 2], [42, 4]],
  0x06054b50: [[4, 2], [8, 2], [10, 2], [12, 4], [16, 4], [20, 2]],
};

/** A field of a header or of the directory is another number, that of another member, or the name has impossible letters. */
export function damagedZip(bytes: Uint8Array, pick: Pick): Uint8Array {
  const copy = Buffer.from(bytes);
  const places: number[] = [];
  for (let at = 0; at + 22 <= copy.length; at++) if (FIELDS[copy.readUInt32LE(at)]) places.push(at);
  if (places.length === 0) return copy;
  for (let left = 1 + pick(2); left > 0; left--) {
    const place = one(pick, places);
    const signature = copy.readUInt32LE(place);
    if (!FIELDS[signature]) continue; // the first damage hit it
    const [field, size] = one(pick, FIELDS[signature]);
    if (place + field + size > copy.length) continue;
    const twins = places.filter((at) => copy.readUInt32LE(at) === signature && at + field + size <= copy.length);
    const now = copy.readUIntLE(place + field, size);
    const value = pick(3) === 0 ? copy.readUIntLE(one(pick, twins) + field, size) : wrong(pick, now);
    if (signature === 0x02014b50 && pick(8) === 0) {
      copy[Math.min(place + 46 + pick(8), copy.length - 1)] = one(pick, [0, 10, 0xff, 0x5c]);
    } else copy.writeUIntLE(((value % 256 ** size) + 256 ** size) % 256 ** size, place + field, size);
  }
  return new Uint8Array(copy);
}

/** What a header of .npy is made to say, in place of what it says. */
const HEADERS: readonly (readonly [RegExp, readonly string[]])[] = [
  [
    /'descr': [^,]+/,
    ["<f8", ">f4", "|O", "<c8", "|V2", "|V99999999999999999999", "<f16", "?", "<U7", "=f4", "f4"].map((type) =>
      `'descr': '${type}'`
    ),
  ],
  [/'descr': [^,]+/, [
    "'descr': [('a', '<f4'), ('b', '|O')]",
    "'descr': None",
    `'descr': ${"[".repeat(40)}`,
    "'desc': '<f4'",
  ]],
  [/(True|False)/, ["True", "False", "None", "1", "__import__('os')"]],
  [
    /\([\d, ]*\)/,
    [
      "()",
      "(0,)",
      "(-1,)",
      "(1, 1, 1, 1, 1, 1, 1, 1)",
      "(9007199254740991, 2)",
      "(0, 9007199254740991, 9007199254740991)",
    ]
      .concat(
        "(4294967296, 4294967296, 4294967296, 4294967296, 0)",
        "(1e9,)",
        "[3, 4]",
        `(${"1, ".repeat(900)})`,
        `(${"9".repeat(400)},)`,
        "(3 * 4,)",
        "(12L,)",
        "(True,)",
      ),
  ],
];

/** An array's header says something else, or its version or length does. */
export function damagedNpy(bytes: Uint8Array, pick: Pick): Uint8Array {
  const copy = Buffer.from(bytes);
  const kind = pick(6);
  if (kind === 0) copy[6] = one(pick, [0, 1, 2, 3, 4, 255]);
  else if (kind === 1) copy.writeUInt16LE(wrong(pick, copy.readUInt16LE(8)) & 0xffff, 8);
  else {
    const begin = copy[6] === 1 ? 10 : 12;
    const end = begin + (begin === 10 ? copy.readUInt16LE(8) : copy.readUInt32LE(8));
    const [what, texts] = one(pick, HEADERS);
    const text = copy.subarray(begin, end).toString("latin1").replace(what, () => one(pick, texts));
    const header = text.length > end - begin ? text.trimEnd() : text.padEnd(end - begin);
    const made = joined(copy.subarray(0, begin), header, copy.subarray(end));
    const length = Buffer.from(made.buffer, made.byteOffset);
    if (begin === 10) length.writeUInt16LE(header.length & 0xffff, 8);
    else length.writeUInt32LE(header.length, 8);
    return made;
  }
  return new Uint8Array(copy);
}

/** Values that an entry of a safetensors header is given. */
const VALUES: readonly unknown[] = [
  0,
  -1,
  2 ** 53,
  1e308,
  0.5,
  null,
  "F32",
  [],
  [0, 0],
  [8, 4],
  [-4, 4],
  [0, 2 ** 53],
  [2 ** 40, 2 ** 40],
  {},
  true,
  ["1"],
  [1, 2, 3],
];

/** A header that says something else of a tensor, twice the same, or of tensors that are not there. */
export function damagedSafetensors(bytes: Uint8Array, pick: Pick): Uint8Array {
  const length = Number(Buffer.from(bytes).readBigUInt64LE(0));
  if (pick(5) === 0) {
    const copy = Buffer.from(bytes);
    copy.writeBigUInt64LE(
      BigInt.asUintN(64, BigInt(one(pick, [0, 1, length - 1, length + 1, 2 ** 31, 2 ** 53, -1]))),
      0,
    );
    return new Uint8Array(copy);
  }
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  const [name, other] = [one(pick, names), one(pick, names)];
  const field = one(pick, ["dtype", "shape", "data_offsets"]);
  switch (pick(8)) {
    case 0:
      header[name] = header[other];
      break;
    case 1:
      header[
        one(pick, ["__proto__", "constructor", "", "\u0000", "a\nb", "\ud800", "é".repeat(3000), "__metadata__"])
      ] = header[name];
      break;
    case 2:
      delete header[name];
      break;
    case 3:
      header[name] = one(pick, VALUES);
      break;
    case 4:
      header.__metadata__ = one(pick, [...VALUES, { a: 1 }, { a: "b" }, "text", { a: { b: [] } }]);
      break;
    case 5:
      header[name].dtype = one(pick, ["F64", "I8", "U64", "BF16", "F8_E4M3", "toString", "__proto__", "f32", "BOOL"]);
      break;
    case 6:
      [header[name][field], header[other][field]] = [header[other][field], header[name][field]];
      break;
    default:
      header[name][field] = one(pick, VALUES);
  }
  return safetensors(JSON.stringify(header), bytes.subarray(8 + length));
}

/** A .safetensors of a header and its data. */
export function safetensors(header: string, data: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return joined(length, text, data);
}

const FF = "\xff";
/** Instructions that do not belong where they are put. */
const SNIPPETS: readonly string[] = [
  `\x8b${FF.repeat(3)}\x7f`,
  `\x8b${FF.repeat(4)}`,
  `\x8d${FF.repeat(8)}`,
  "\x8d\0\0\0\0\x01\0\0\0",
  `\x8e${FF.repeat(7)}\x7f`,
  `\x95${FF.repeat(8)}`,
  `X${FF.repeat(4)}`,
  `B${FF.repeat(3)}\x7f`,
  `T${FF.repeat(4)}`,
  `r${FF.repeat(4)}`,
  "\x94".repeat(2000),
  "(".repeat(2000),
  "N" + "\x85".repeat(100_000),
  "]".repeat(3000) + "a".repeat(2999),
  "}(" + "K\x01".repeat(501) + "u",
  "]q\x00h\x00a",
  "}q\x00h\x00h\x00s",
  "(q\x00h\x00tq\x00",
  "cos\nsystem\n",
  "cos\nsystem\n(X\x02\0\0\0idtR",
  "(X\x02\0\0\0idios\nsystem\n",
  "c__builtin__\neval\nX\x01\0\0\x001\x85R",
  "cnumpy\nndarray\n)\x81",
  "ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR",
  "ctorch\nFloatStorage\n",
  "(X\x07\0\0\0storageNNNNtQ",
  "ccollections\nOrderedDict\n]]R",
  "I" + "9".repeat(3000) + "\n",
  "L-5L\n",
  "S'a\n",
  "F1e999\n",
  "\x8a\xff" + FF.repeat(255),
  "\x82\x01",
  "\x97",
  "\x80\x09",
  ..."012.NRQtbuesdloai)]}\x81\x85\x86\x87\x8f\x90\x91\x92\x93\x94\x98",
];

/** Instructions put in, taken out, or with other operands. */
export function damagedPickle(pickle: Uint8Array, pick: Pick): Uint8Array {
  let copy: Uint8Array = pickle.slice();
  for (let left = 1 + pick(3); left > 0; left--) {
    const at = pick(copy.length + 1);
    const operand = copy.findIndex((code, i) => i >= at && "KMJhqrX".includes(String.fromCharCode(code)));
    const kind = pick(4);
    if (kind === 0) copy = joined(copy.subarray(0, at), one(pick, SNIPPETS), copy.subarray(at));
    else if (kind === 1) copy = joined(copy.subarray(0, at), one(pick, SNIPPETS), copy.subarray(at + 1 + pick(12)));
    else if (kind === 2 && operand >= 0 && operand + 5 <= copy.length) {
      for (let i = 1; i <= (copy[operand] === 0x4b || copy[operand] === 0x68 ? 1 : 4); i++) {
        copy[operand + i] = one(pick, [0, 0, 1, 2, 0x7f, 0x80, 0xff, copy[operand + i]]);
      }
    } else copy = joined(copy.subarray(0, at), copy.subarray(Math.min(copy.length, at + 1 + pick(3))));
  }
  return copy;
}

/** A zip whose members were changed by `change`, otherwise whole: sizes and checksums are right again. */
export function rezipped(bytes: Uint8Array, change: (members: Packed[]) => Packed[]): Uint8Array {
  return zipOf(change(unzipped(bytes)));
}
