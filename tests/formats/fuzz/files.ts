/** The files of a fuzzing run: file `index` of a seed is always the same bytes. */
import { readFileSync } from "node:fs";
import { npyHeader } from "../../../src/formats/npy.ts";
import { fixture } from "../support.ts";
import { dict, joined, tensor, torchLegacy, torchZip, word, zipOf } from "../torch_made.ts";
import { HOSTILE } from "./hostile.ts";
import { damaged, damagedNpy, damagedPickle, damagedSafetensors, damagedZip, rezipped, safetensors } from "./mutate.ts";
import { one, type Pick, random } from "./random.ts";

/** A file and where it comes from, in words. */
export interface FuzzFile {
  readonly what: string;
  /** "hostile", or how it was damaged. */
  readonly how: string;
  readonly bytes: Uint8Array;
}

type Kind = "npy" | "npz" | "safetensors" | "zip" | "legacy";
interface Base {
  readonly name: string;
  readonly kind: Kind;
  readonly bytes: Uint8Array;
}

const FIXTURES: readonly (readonly [Kind, string, string])[] = [
  ["npy", "", "f32.npy f64_big.npy i64.npy bool.npy f16.npy"],
  ["npz", "", "stored.npz deflated.npz zip64.npz"],
  ["safetensors", "", "all.safetensors"],
  [
    "zip",
    "torch/",
    "types_zip.pt views_zip.pt wrapped_zip.pt parts.pt parameters.pt repacked.pt unreadable.pt big_endian.pt aliases.pt tensor.pt protocol4.pt protocol5.pt",
  ],
  ["legacy", "torch/", "types_legacy.pt views_legacy.pt wrapped_legacy.pt legacy_protocol4.pt"],
];

const [DIM, HEAD, M, TOKENS, LENGTH] = [4, 2, 3, 5, 6];

/** The tensors of a PerformerLM of one layer, by name. */
function model(): Record<string, number[]> {
  const layer = "performer.net.layers.0.";
  const shapes: Record<string, number[]> = {
    "token_emb.weight": [TOKENS, DIM],
    "pos_emb.emb": [LENGTH, DIM],
    "layer_pos_emb.emb": [LENGTH, HEAD],
    [`${layer}0.fn.fast_attention.projection_matrix`]: [M, HEAD],
    "norm.weight": [DIM],
    "norm.bias": [DIM],
    "to_out.weight": [TOKENS, DIM],
    "to_out.bias": [TOKENS],
    "performer.proj_updater.calls_since_last_redraw": [],
  };
  for (const x of ["to_q", "to_k", "to_v", "to_out"]) shapes[`${layer}0.fn.${x}.weight`] = [DIM, DIM];
  for (const i of [0, 1]) for (const x of ["weight", "bias"]) shapes[`${layer}${i}.norm.${x}`] = [DIM];
  for (const [w, out, inner] of [["w1", 8, DIM], ["w2", DIM, 8]] as const) {
    shapes[`${layer}1.fn.fn.${w}.weight`] = [out, inner];
    shapes[`${layer}1.fn.fn.${w}.bias`] = [out];
  }
  return shapes;
}

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** The model in every format that holds one. */
function models(): Base[] {
  const shapes = Object.entries(model());
  const values = shapes.map(([, shape], i) => {
    return new Uint8Array(Float32Array.from({ length: sizeOf(shape) }, (_, j) => Math.sin(i + 7 * j)).buffer);
  });
  let at = 0;
  const header = Object.fromEntries(shapes.map(([name, shape], i) => {
    return [name, { dtype: "F32", shape, data_offsets: [at, at += values[i].length] }];
  }));
  const state = dict(Object.fromEntries(shapes.map(([name, shape], i) => {
    const strides = shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));
    return [name, tensor({ key: String(i), count: sizeOf(shape), shape, strides })];
  })));
  const counted = values.map((data) => joined(String.fromCharCode(data.length / 4), "\0".repeat(7), data));
  const keys = shapes.map((_, i) => word(String(i))).join("");
  return [
    { name: "model.safetensors", kind: "safetensors", bytes: safetensors(JSON.stringify(header), joined(...values)) },
    {
      name: "model.npz",
      kind: "npz",
      bytes: zipOf(
        shapes.map(([name, shape], i) => ({ name: `${name}.npy`, data: joined(npyHeader("f32", shape), values[i]) })),
      ),
    },
    { name: "model.pt", kind: "zip", bytes: torchZip(state, ...values) },
    { name: "model_legacy.pt", kind: "legacy", bytes: torchLegacy(state, `](${keys}e.`, ...counted) },
  ];
}

const BASES: readonly Base[] = [
  ...FIXTURES.flatMap(([kind, folder, names]) =>
    names.split(" ").map((name): Base => ({ name, kind, bytes: new Uint8Array(readFileSync(fixture(folder + name))) }))
  ),
  ...models(),
];

/** Damage that knows the format. */
const AIMED: Readonly<Record<Kind, (bytes: Uint8Array, pick: Pick) => Uint8Array>> = {
  npy: damagedNpy,
  safetensors: damagedSafetensors,
  legacy: damagedPickle,
  npz: (bytes, pick) =>
    pick(2) === 0 ? damagedZip(bytes, pick) : rezipped(bytes, (members) => {
      const chosen = pick(members.length);
      return members.map((member, i) =>
        i === chosen && member.name.endsWith(".npy") ? { ...member, data: damagedNpy(member.data, pick) } : member
      );
    }),
  zip: (bytes, pick) =>
    pick(3) === 0
      ? damagedZip(bytes, pick)
      : rezipped(bytes, (members) =>
        members.map((member) =>
          member.name.endsWith("data.pkl") ? { ...member, data: damagedPickle(member.data, pick) } : member
        )),
};

/** Sizes of hostile files: mostly small ones, which are quick to make. */
const SIZES = [1000, 1000, 5000, 20_000, 100_000];

/** File `index` of a seed. `largest` bounds what the hostile ones take. */
export function fileOf(seed: number, index: number, largest = Infinity): FuzzFile {
  const pick = random(seed * 1_000_003 + index);
  if (index % 8 === 0) {
    const kinds = Object.keys(HOSTILE);
    const kind = kinds[index / 8 % kinds.length];
    const size = Math.min(largest, one(pick, SIZES));
    return { what: `${kind}, ${size}`, how: "hostile", bytes: HOSTILE[kind](pick, size) };
  }
  const base = one(pick, BASES);
  const how = one(pick, ["anywhere", "aimed", "aimed", "both"]);
  let { bytes } = base;
  if (how !== "anywhere") bytes = AIMED[base.kind](bytes, pick);
  if (how !== "aimed") bytes = damaged(bytes, one(pick, BASES).bytes, pick);
  return { what: base.name, how, bytes };
}
