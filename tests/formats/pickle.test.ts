/** Pickles that lie, climb, loop or would call something: named and refused, never executed, never slow. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { InputError } from "../../src/errors.ts";
import { Container } from "../../src/formats/container.ts";
import { memoryBytes } from "../../src/formats/memory.ts";
import { unpickle } from "../../src/formats/pickle.ts";
import { Global, Opaque } from "../../src/formats/pickle_values.ts";
import { torch } from "../../src/formats/torch.ts";
import { stopwatch } from "./fuzz/random.ts";
import { rejection } from "./support.ts";
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
} from "./torch_made.ts";

const eight = new Uint8Array(new Float32Array([1.5, -2]).buffer);

async function opened(bytes: Uint8Array): Promise<Container> {
  const source = memoryBytes(bytes, "x.pt");
  return new Container("torch", source, await torch.open(source));
}

/** The message that a file is refused with, in less than two seconds. */
async function refusal(bytes: Uint8Array): Promise<string> {
  const passed = stopwatch();
  const error = await rejection((async () => {
    await using container = await opened(bytes);
    for (const { name } of container.members) await container.readAll(name);
  })());
  expect(error).toBeInstanceOf(InputError);
  expect(error.message).toStartWith("Cannot read ");
  expect(passed()).toBeLessThan(2000);
  return error.message;
}

const values = async (pickle: string | Uint8Array) => {
  const source = memoryBytes(joined(pickle), "x.pkl");
  const hooks = () => ({
    persistent: (id: unknown) => id,
    call: (callee: unknown) => new Opaque((callee as Global).name),
  });
  return (await unpickle(source, 0, source.byteLength, '"x.pkl"', hooks)).value;
};

describe("values of every protocol", () => {
  test.each<[string, string, unknown]>([
    ["protocol 0", "(lp0\nI1\naI-3\naL12L\naF2.5\naI01\naNaS'a\\n\\'b\\x41'\naVé\\u0394\na.", [
      1,
      -3,
      12,
      2.5,
      true,
      null,
      "a\n'bA",
      "éΔ",
    ]],
    ["protocol 1", "](K\x07M\x01\x02J\xff\xff\xff\xffG\x3f\xf8\x00\x00\x00\x00\x00\x00U\x02ab)e.", [
      7,
      513,
      -1,
      1.5,
      "ab",
      [],
    ]],
    ["long integers", "](\x8a\x01\xff\x8a\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80\x8b\x02\x00\x00\x00\x00\x01e.", [
      -1,
      0,
      -(2n ** 63n),
      256,
    ]],
    ["protocol 4", "\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(\x8c\x01a\x94h\x01\x8f(K\x01\x90\x88e.", [
      "a",
      "a",
      [1],
      true,
    ]],
    ["bytes", "C\x02ab.", Uint8Array.of(97, 98)],
    ["dicts", "(X\x01\x00\x00\x00aK\x01d.", new Map([["a", 1]])],
    ["POP, DUP and POP_MARK", "](K\x01(K\x09K\x0812(0e.", [1, 1]],
  ])("%s", async (_, pickle, value) => {
    expect(await values(pickle)).toEqual(value);
  });

  test("a list that holds itself is one", async () => {
    const list = await values("]q\x00h\x00a.") as unknown[];
    expect(list[0]).toBe(list);
  });

  test("a pickle longer than what is read at first", async () => {
    const long = "x".repeat(500_000);
    expect(await values(`]${word(long)}a.`)).toEqual([long]);
  });

  test.each<[string, string, string]>([
    ["nothing", "", "stops short"],
    ["no STOP", "K\x01", "stops short"],
    ["an empty stack", ".", "not there"],
    ["REDUCE without arguments", "cos\nsystem\nR.", "not there"],
    ["arguments that are no tuple", "cos\nsystem\nK\x01R.", "no tuple"],
    ["a missing memo", "h\x05.", "memo 5"],
    ["a pop below a mark", "K\x01(0\x30t.", "not there"],
    ["an unknown instruction", "\xff.", "0xff"],
    ["the extension registry", "\x82\x01.", "0x82"],
    ["a buffer from outside", "\x97.", "0x97"],
    ["protocol 9", "\x80\x09.", "protocol 9"],
    ["a negative length", "T\xff\xff\xff\xff.", "-1 bytes"],
    ["a negative LONG4", "\x8b\xff\xff\xff\xff.", "-1 bytes"],
    ["a length of 8 EiB", "\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "claims"],
    ["a length of 4 GiB", "B\xff\xff\xff\xff.", "stops short"],
    ["a number of many digits", `I${"9".repeat(5000)}\n.`, "broken number"],
    ["APPEND to a number", "K\x01K\x02a.", "no list"],
    ["SETITEM on a list", "]K\x01K\x02s.", "no dict"],
    ["a key without value", "}(K\x01u.", "no value"],
  ])("%s is refused", async (_, pickle, words) => {
    const error = await rejection(values(pickle));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(words);
  });
});

describe("calls are never made, and named", () => {
  const marker = "/tmp/performer-pickle-was-run";
  const attack = (module: string, name: string) => called(named(module, name), word(`touch ${marker}`));
  const calls: [string, string, string][] = [
    ["os.system", attack("posix", "system"), "posix.system"],
    ["eval", attack("builtins", "eval"), "builtins.eval"],
    ["exec of Python 2", attack("__builtin__", "exec"), "__builtin__.exec"],
    ["INST", `(${word("id")}ios\nsystem\n`, "os.system"],
    ["OBJ", `(${named("subprocess", "Popen")}${word("id")}o`, "subprocess.Popen"],
    ["NEWOBJ", `${named("subprocess", "Popen")}${tuple(word("id"))}\x81`, "subprocess.Popen"],
    ["STACK_GLOBAL", `${word("os")}${word("system")}\x93${tuple(word("id"))}R`, "os.system"],
    [
      "torch's own loader",
      called(named("torch.storage", "_load_from_bytes"), "C\x01a"),
      "torch.storage._load_from_bytes",
    ],
    [
      "runpy behind a known name",
      called(named("torch._tensor", "_rebuild_from_type_v2"), named("runpy", "run_path"), "N", tuple(word("x")), "}"),
      "runpy.run_path",
    ],
    ["BUILD", `${named("x", "Y")})\x81}${word("__setstate__")}${named("os", "system")}sb`, "x.Y"],
    ["control characters", called(named("a\x1b[2J", "b"), word("id")), "a?[2J.b"],
  ];

  test.each(calls)("%s in place of the object", async (_, pickle, name) => {
    const words = `Cannot read "x.pt": it would call ${name}, which is never done; expected tensors`;
    expect(await refusal(torchZip(pickle))).toBe(words);
    expect(await refusal(torchLegacy(pickle, "]."))).toBe(words);
    expect(await refusal(joined("\x80\x02", pickle, "."))).toBe(words);
    expect(await refusal(torchZip(dict({ state_dict: pickle })))).toBe(words);
    expect(await refusal(torchZip(dict({ x: pickle, y: "K\x01" })))).toBe(words);
    expect(existsSync(marker)).toBe(false);
  });

  test.each(calls)("%s beside the model does no harm and is listed", async (_, pickle, name) => {
    const state = dict({ state_dict: dict({ w: tensor() }), extra: pickle });
    await using container = await opened(torchZip(state, eight));
    expect([...(await container.readAll("w")).data]).toEqual([1.5, -2]);
    expect(container.metadata.never_called.split(", ")).toContain(name);
  });

  test("in place of a tensor it is refused when that tensor is asked for", async () => {
    await using container = await opened(torchZip(dict({ w: tensor(), bad: attack("posix", "system") }), eight));
    expect([...(await container.readAll("w")).data]).toEqual([1.5, -2]);
    expect((await rejection(container.readAll("bad"))).message).toContain("posix.system");
  });

  test("thrown away before the magic number it is still listed", async () => {
    const state = torchLegacy(dict({ w: tensor() }), `](${word("0")}e.`, "\x02\0\0\0\0\0\0\0", eight);
    await using container = await opened(joined("\x80\x02", attack("os", "system"), "0", state.subarray(2)));
    expect(container.metadata.never_called).toBe("os.system");
    expect([...(await container.readAll("w")).data]).toEqual([1.5, -2]);
  });

  test("a chain of calls is named by its last", async () => {
    const imported = called(named("builtins", "__import__"), word("os"));
    const pickle = called(called(named("builtins", "getattr"), imported, word("system")), word("id"));
    expect(await refusal(torchZip(pickle))).toContain("it would call builtins.getattr");
    expect(await refusal(joined(pickle, "."))).toContain("it would call builtins.__import__");
  });

  test("text pickles", async () => {
    expect(torch.matches(joined("cos\nsystem\n(S'id'\ntR."))).toBe(true);
    expect(await refusal(joined("cos\nsystem\n(S'id'\ntR."))).toContain("os.system");
  });
});

describe("shapes of pickles that cost", () => {
  test.each<[string, string | Uint8Array, string]>([
    ["a list in itself", `]q\x00(${tensor()}h\x00e`, "itself"],
    ["a dict in itself", `}q\x00(${word("w")}${tensor()}${word("me")}h\x00u`, "itself"],
    ["a wrapper in itself", `}q\x00(${word("w")}${tensor()}${word("model")}h\x00u`, "itself"],
    ["a billion laughs", laughs(9), "more than 100000 tensors"],
    ["deep lists", "]".repeat(2000) + tensor() + "a".repeat(2000), "nested deeper"],
    ["deep marks", "(".repeat(100_000) + "N" + "t".repeat(100_000), "no tensors"],
    ["half a million empty lists", "]0".repeat(500_000) + "N", "one value"],
    ["millions of objects", `(${"]".repeat(1_500_000)}t`, "more than 1000000 objects"],
    ["millions of steps", "N0".repeat(3_000_000) + "N", "steps"],
    [
      "copies of a long list of pairs",
      `](${tuple("K\x01", "N").repeat(9000)}eq\x00${`0ccollections\nOrderedDict\n(h\x00tR`.repeat(1000)}`,
      "pairs",
    ],
    [
      "a thousand long texts",
      dict({ w: tensor(), a: `](${word("x".repeat(60_000))}q\x00${"h\x00".repeat(1000)}e` }),
      "",
    ],
  ])("%s", async (_, pickle, words) => {
    const bytes = torchZip(pickle, eight);
    if (words !== "") return expect(await refusal(bytes)).toContain(words);
    const passed = stopwatch();
    await using container = await opened(bytes);
    expect([...(await container.readAll("w")).data]).toEqual([1.5, -2]);
    expect(passed()).toBeLessThan(2000);
  });
});

describe("tensors that are not in their file", () => {
  const state = (options: Parameters<typeof tensor>[0]) => torchZip(dict({ w: tensor(options) }), eight);
  test.each<[string, Uint8Array, string]>([
    ["beyond the storage", state({ shape: [3] }), "beyond the 2"],
    ["an offset beyond", state({ offset: 1 }), "beyond the 2"],
    ["a stride beyond", state({ strides: [2] }), "beyond the 2"],
    ["a negative size", state({ shape: [-2] }), "malformed"],
    ["a negative stride", state({ strides: [-1] }), "malformed"],
    ["a negative offset", state({ offset: -1 }), "malformed"],
    ["a negative count", state({ count: -2 }), "malformed"],
    ["fewer strides than sizes", state({ shape: [1, 2] }), "malformed"],
    ["a storage that is missing", state({ key: "7" }), 'storage "7"'],
    ["a key that climbs", state({ key: "../data.pkl" }), "does not hold it"],
    ["a storage of another size", state({ count: 5 }), "has 8 bytes, expected 20"],
    ["one number repeated 2^62 times", state({ shape: [2 ** 31 - 1, 2 ** 31 - 1], strides: [0, 0] }), "repeats"],
    ["an unknown storage", state({ type: "EvilStorage" }), "no tensors"],
    ["two sizes of one storage", torchZip(dict({ a: tensor(), b: tensor({ count: 3 }) }), eight), "two sizes"],
    ["the same name twice", torchZip(dict({ "a.b": tensor(), a: dict({ b: tensor() }) }), eight), '"a.b" twice'],
    ["a number", torchZip(number(5)), "one value"],
    ["an empty dict", torchZip("}"), "no tensors"],
    ["only an optimiser", torchZip(dict({ optimizer: dict({ w: tensor() }) }), eight), "those of optimizer"],
  ])("%s", async (_, bytes, words) => {
    expect(await refusal(bytes)).toContain(words);
  });

  test.each<[string, Uint8Array, string]>([
    ["no list of storages", torchLegacy(dict({ w: tensor() }), "N."), "no list"],
    ["a storage nobody has", torchLegacy(dict({ w: tensor() }), `](${word("9")}e.`), "no tensor has"],
    [
      "a storage twice",
      torchLegacy(dict({ w: tensor() }), `](${word("0")}${word("0")}e.`, "\x02\0\0\0\0\0\0\0", eight),
      "twice",
    ],
    [
      "another count",
      torchLegacy(dict({ w: tensor() }), `](${word("0")}e.`, "\x03\0\0\0\0\0\0\0", eight),
      "3 elements, expected 2",
    ],
    [
      "a cut storage",
      torchLegacy(dict({ w: tensor() }), `](${word("0")}e.`, "\x02\0\0\0\0\0\0\0", eight.subarray(3)),
      "truncated",
    ],
    ["a storage left out", torchLegacy(dict({ w: tensor() }), "]."), "does not hold it"],
    ["another version", joined(torchLegacy("N").subarray(0, 15), "\x80\x02K\x01."), "version"],
    ["another pickle", joined("\x80\x02", dict({ w: "K\x01" }), "."), "torch.save did not write"],
  ])("legacy: %s", async (_, bytes, words) => {
    expect(await refusal(bytes)).toContain(words);
  });

  const pickle = joined("\x80\x02", dict({ w: tensor() }), ".");
  test.each<[string, Uint8Array, string]>([
    ["a member twice", zipOf([{ name: "m/data.pkl", data: pickle, listed: 2 }]), "twice"],
    [
      "two checkpoints",
      zipOf([{ name: "a/data.pkl", data: pickle }, { name: "b/data.pkl", data: pickle }]),
      "2 checkpoints",
    ],
    ["a size beyond the file", zipOf([{ name: "m/data.pkl", data: pickle, size: 2 ** 31 }]), "truncated"],
    ["a pickle cut short", zipOf([{ name: "m/data.pkl", data: pickle, size: 20 }]), "stops short"],
    ["a climbing name", zipOf([{ name: "../data.pkl", data: pickle }]), "relative path"],
    ["no end", torchZip(dict({ w: tensor() }), eight).subarray(0, -30), "damaged"],
    ["no beginning", torchZip(dict({ w: tensor() }), eight).subarray(30), "x.pt"],
    [
      "a byte order of its own",
      zipOf([
        { name: "m/data.pkl", data: pickle },
        { name: "m/byteorder", data: joined("middle") },
      ]),
      '"middle"',
    ],
    [
      "a TorchScript program",
      zipOf([
        { name: "m/data.pkl", data: joined("\x80\x02", called(named("__torch__", "Net")), ".") },
        { name: "m/constants.pkl", data: pickle },
      ]),
      "TorchScript",
    ],
  ])("zip: %s", async (_, bytes, words) => {
    expect(await refusal(bytes)).toContain(words);
  });

  test("a tar of old is refused by name", async () => {
    const tar = new Uint8Array(1024);
    tar.set(joined("ustar"), 257);
    expect(torch.matches(tar.subarray(0, 512))).toBe(true);
    expect(await refusal(tar)).toContain("tar");
  });
});
