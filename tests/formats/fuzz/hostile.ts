/** Files made to hurt: bombs, cycles, floods, lies. `size` scales them. */
import { crc32, deflateRawSync } from "node:zlib";
import { npyHeader } from "../../../src/formats/npy.ts";
import {
  called,
  dict,
  joined,
  laughs,
  named,
  number,
  tensor,
  torchLegacy,
  torchZip,
  tuple,
  word,
  zipOf,
} from "../torch_made.ts";
import { safetensors } from "./mutate.ts";
import { one, type Pick } from "./random.ts";

const eight = new Uint8Array(new Float32Array([1.5, -2]).buffer);
const f32 = (...shape: number[]) => npyHeader("f32", shape);

/** A pickle of one instruction after the other, `times` in number, and something to end with. */
const flood = (unit: string, times: number) => torchZip(unit.repeat(times) + "N", eight);

/** A member deflated from zeros, which declares `size` bytes in all. */
function bomb(name: string, head: Uint8Array, zeros: number, size = head.length + zeros) {
  const bytes = joined(head, new Uint8Array(zeros));
  return { name, data: new Uint8Array(deflateRawSync(bytes)), size, deflated: crc32(bytes) };
}

/** Tensors of a .safetensors by name: two floats each where `data` has room, else empty. */
function emptyTensors(names: readonly string[]): Uint8Array {
  const entries = names.map((name) => `${JSON.stringify(name)}:{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`);
  return safetensors(`{${entries.join(",")}}`, new Uint8Array(0));
}

const numbered = <T>(length: number, make: (i: number) => T): T[] => Array.from({ length }, (_, i) => make(i));

/** Enough of a PerformerLM to be taken for one. */
const LM = ["token_emb.weight", "performer.net.layers.0.0.fn.to_q.weight"];

/** What is repeated in a flood of instructions. */
const UNITS = [
  "N0",
  "]0",
  "}0",
  ")0",
  "C\x000",
  "C\x00",
  "]",
  "}",
  "N",
  "(",
  "\x8a\x01\x010",
  "G\x3f\xf8\0\0\0\0\0\x010",
  "U\x02ab0",
  "U\x02ab",
  "ca\nb\n0",
  "ca\nb\n",
  "N\x94",
  "(t0",
  "\x8a\x04\xff\xff\xff\x7f",
  "I12\n0",
  "Va\n0",
  "K\x01K\x02\x86",
  "ca\nb\n)R",
];

/** The kinds, by what they are. */
export const HOSTILE: Readonly<Record<string, (pick: Pick, size: number) => Uint8Array>> = {
  "tuples in tuples": (_, size) => torchZip(`N${"\x85".repeat(size)}`, eight),
  "marks": (_, size) => torchZip("(".repeat(size) + "N" + "t".repeat(size), eight),
  "lists in lists": (_, size) => torchZip("]".repeat(size) + tensor() + "a".repeat(size), eight),
  "dicts in dicts": (_, size) => torchZip("}K\x01".repeat(size) + tensor() + "s".repeat(size), eight),
  "calls of calls": (_, size) => torchZip(named("a", "b") + ")R".repeat(size), eight),
  "a list in itself": () => torchZip(`]q\x00(${tensor()}h\x00e`, eight),
  "a dict in itself": () => torchZip(`}q\x00(${word("w")}${tensor()}${word("me")}h\x00u`, eight),
  "a dict under its own key": () => torchZip(`}q\x00(h\x00h\x00${word("w")}${tensor()}u`, eight),
  "a tuple in itself": () => torchZip(`]q\x00h\x00\x85a`, eight),
  "state that is itself": () => torchZip(`${named("x", "Y")})\x81q\x00h\x00b`, eight),
  "laughs": (pick) => torchZip(laughs(3 + pick(8)), eight),
  "a flood": (pick, size) => flood(one(pick, UNITS), size * 5),
  "memos": (_, size) =>
    torchZip(`N${numbered(size, (i) => `r${String.fromCharCode(i & 255, i >> 8 & 255, i >> 16)}\0`).join("")}`, eight),
  "lengths beyond the file": (pick) =>
    torchZip(
      one(pick, [
        "\x8b\xff\xff\xff\x7f",
        "\x8d\xff\xff\xff\xff\xff\xff\0\0",
        "\x8e\0\0\0\0\x01\0\0\0",
        "X\xff\xff\xff\xff",
        "\x95\xff\xff\xff\xff\xff\xff\xff\x7f",
      ]),
      eight,
    ),
  "large integers": (_, size) => torchZip(`(${`\x8a\xff${"\x7f".repeat(255)}`.repeat(size / 100)}t`, eight),
  "a long dict beside the model, a thousand times": (_, size) =>
    torchZip(
      dict({
        w: tensor(),
        a: `}(${numbered(size, (i) => `${number(i)}N`).join("")}uq\x00`,
        ...Object.fromEntries(numbered(990, (i) => [`b${i}`, "h\x00"])),
      }),
      eight,
    ),
  "one number very often": (pick, size) => {
    const shape = one(pick, [[size, 600], [600, size], [2 ** 31 - 1, 2 ** 31 - 1], [2 ** 24], new Array(24).fill(2), [
      2 ** 25,
    ], [2 ** 25 + 1]]);
    return torchZip(dict({ w: tensor({ shape, strides: shape.map(() => 0) }) }), eight);
  },
  "rows that overlap": (pick, size) => {
    const stride = one(pick, [1, 3, 1999]);
    const axes = 1 + pick(24);
    const count = axes * stride + 2;
    const w = tensor({ count, shape: new Array(axes).fill(2), strides: new Array(axes).fill(stride) });
    const long = tensor({ count, shape: [Math.min(count, size), 2], strides: [1, 1] });
    return torchZip(dict({ w, long }), new Uint8Array(4 * count));
  },
  "places beyond": (pick) => {
    const far = one(pick, [2, 3, -1, 2 ** 31 - 1]);
    const choice = one(pick, [
      { offset: far },
      { shape: [far] },
      { strides: [far] },
      { count: far },
      { shape: [far, far], strides: [far, far] },
      { shape: [1, 2] },
      { key: "1" },
      { key: "../x" },
    ]);
    return one(pick, [
      (pickle: string) => torchZip(pickle, eight),
      (pickle: string) => torchLegacy(pickle, `](${word("0")}e.`, "\x02\0\0\0\0\0\0\0", eight),
    ])(dict({ w: tensor(choice) }));
  },
  "numbers of 64 bits": (pick) => {
    const long = () =>
      `\x8a\x08${
        one(pick, ["\xff\xff\xff\xff\xff\xff\x1f\0", "\xff\xff\xff\xff\xff\xff\xff\x7f", "\0\0\0\0\0\0\0\x80"])
      }`;
    const id = `${
      tuple(word("storage"), named("torch", "FloatStorage"), word("0"), word("cpu"), pick(2) ? long() : number(2))
    }Q`;
    return torchZip(
      dict({
        w: called(
          named("torch._utils", "_rebuild_tensor_v2"),
          id,
          pick(2) ? long() : number(0),
          tuple(pick(2) ? long() : number(2)),
          tuple(number(1)),
          "\x89",
          "}",
        ),
      }),
      eight,
    );
  },
  "a tensor of no axes": () =>
    torchZip(dict({ w: tensor({ shape: [], strides: [] }), none: tensor({ shape: [0, 7], strides: [7, 1] }) }), eight),
  "names that are not to be shown": (pick) =>
    torchZip(
      dict({
        [
          one(pick, [
            "\x1b[2J",
            "a\nb",
            "\0",
            "\x9b31m",
            "x".repeat(4096),
            "x".repeat(5000),
            "__proto__",
            "constructor",
            "",
          ])
        ]: tensor(),
      }),
      eight,
    ),
  "calls": (pick) =>
    torchZip(
      one(pick, [
        called(named("posix", "system"), word("true")),
        dict({ w: tensor(), x: called(named("builtins", "exec"), word("1/0")) }),
        dict({ w: called(named("os", "system"), word("true")) }),
        `${named("subprocess", "Popen")}${word("true")}\x85R`,
      ]),
      eight,
    ),
  "a bomb": (pick, size) => {
    const zeros = size * 600;
    return zipOf([bomb("q.npy", f32(zeros / 4), zeros, one(pick, [undefined, 1000, 2 ** 31]))]);
  },
  "a bomb for a pickle": (pick, size) =>
    zipOf([bomb("m/data.pkl", joined("\x80\x02"), size * 600, one(pick, [undefined, 100, 2 ** 28 + 1]))]),
  "a bomb for a storage": (_, size) => {
    const count = size * 150;
    const pickle = joined("\x80\x02", dict({ w: tensor({ count, shape: [count] }) }), ".");
    return zipOf([{ name: "m/data.pkl", data: pickle }, bomb("m/data/0", new Uint8Array(0), 4 * count)]);
  },
  "a bomb that many share": (_, size) => {
    const first = bomb("0.npy", f32(size), 4 * size);
    return zipOf([first, ...numbered(Math.min(size / 10, 20_000), (i) => ({ ...first, name: `${i + 1}.npy`, at: 0 }))]);
  },
  "many small bombs": (_, size) => zipOf(numbered(size / 50, (i) => bomb(`${i}.npy`, f32(20_000), 80_000))),
  "many members": (_, size) => zipOf(numbered(size / 4, (i) => ({ name: `${i}.npy`, data: f32(0) }))),
  "members that overlap": (pick) => {
    const data = joined(f32(2), eight);
    return zipOf([{ name: "q.npy", data }, { name: "k.npy", data, at: one(pick, [0, 1, 30, 35]) }]);
  },
  "the same name twice": (pick) => {
    const data = joined(f32(2), eight);
    return zipOf(one(pick, [[{ name: "q.npy", data, listed: 2 }], [{ name: "q.npy", data }, { name: "q.npy", data }]]));
  },
  "names of a zip": (pick) => {
    const name = one(pick, [
      joined("\xff\xfe\x80.npy"),
      joined("a\nb.npy"),
      joined("\x1b[2J.npy"),
      "../q.npy",
      "/q.npy",
      "C:/q.npy",
      "a\\..\\q.npy",
      ".npy",
      "x".repeat(60_000) + ".npy",
      "__proto__.npy",
    ]);
    return zipOf([{ name, data: joined(f32(2), eight) }]);
  },
  "a .npy of many axes": (pick) => {
    const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${one(pick, ["1, ", "0, "]).repeat(20_000)}), }`;
    return joined("\x93NUMPY\x02\x00", [text.length & 255, text.length >> 8, text.length >> 16, 0], text, eight);
  },
  "a .npy of quotes": (pick) => {
    const text = `{'descr': '${
      one(pick, ["a", "\\'", "\\\\"]).repeat(30_000)
    }', 'fortran_order': False, 'shape': (2,), }`;
    return joined("\x93NUMPY\x02\x00", [text.length & 255, text.length >> 8, 0, 0], text, eight);
  },
  "brackets": (pick, size) => safetensors(`{"a":${one(pick, ["[", '{"a":']).repeat(size * 3)}`, eight),
  "brackets that close": (pick, size) => {
    const deep = `${"[".repeat(size)}${"]".repeat(size)}`;
    return safetensors(
      one(pick, [`{"a":${deep}}`, `{"__metadata__":{"a":${deep}}}`, `{"__metadata__":${deep}}`]),
      new Uint8Array(0),
    );
  },
  "a long text for metadata": (_, size) =>
    safetensors(`{"__metadata__":"${"x".repeat(size * 20)}"}`, new Uint8Array(0)),
  "many tensors": (_, size) => emptyTensors(numbered(size / 2, (i) => `tensor.${i}`)),
  "many models": (_, size) =>
    emptyTensors(
      numbered(size / 5, (i) =>
        one(() => i & 1, [`a${i >> 1}.token_emb.weight`, `a${i >> 1}.performer.net.layers.0.0.fn.to_q.weight`])),
    ),
  "many attentions": (_, size) =>
    emptyTensors(
      numbered(size / 5, (i) =>
        one(() => i & 1, [`a${i >> 1}.fast_attention.projection_matrix`, `a${i >> 1}.to_q.weight`])),
    ),
  "layers without end": (_, size) =>
    emptyTensors([...LM, ...numbered(size / 10, (i) => `performer.net.layers.${i}.0.fn.to_q.weight`)]),
  "layers with a gap": (_, size) => emptyTensors([...LM, ...numbered(size, (i) => `performer.net.layers.${i + 2}.x`)]),
  "layers without a number": () =>
    emptyTensors(["token_emb.weight", "performer.net.layers.x", "performer.net.blocks.x"]),
  "long names": (_, size) =>
    emptyTensors([`${"net.0.".repeat(size)}to_q.weigh`, `${"a.".repeat(size)}token_emb.weight`]),
  "names almost right": (_, size) =>
    emptyTensors([...LM, ...numbered(size / 5, (i) => `performer.net.layers.0.0.fn.to_k${i}.weight`)]),
  "empty tensors of a model": () =>
    emptyTensors(["to_q.weight", "to_k.weight", "to_v.weight", "to_out.weight", "fast_attention.projection_matrix"]),
};
