/**
 * The few names of torch and Python that a checkpoint's tensors are made of (torch/_utils.py, torch/serialization.py).
 * Every other name stays a name: its call gives an Opaque, which is refused where a tensor is wanted and else does no harm.
 */
import type { DType } from "../tensor.ts";
import type { PickleHooks } from "./pickle.ts";
import { Global, Opaque, printable } from "./pickle_values.ts";
import { MAX_RANK } from "./view.ts";

/** A run of elements that tensors share, as the pickle declares it. */
export interface Storage {
  readonly key: string;
  readonly dtype: DType | null;
  readonly typeName: string;
  readonly itemBytes: number;
  /** Elements of the whole storage. */
  readonly count: number;
}

/** A tensor as the pickle describes it; nothing of it is checked against the file yet. */
export class TorchTensor {
  constructor(
    readonly storage: Storage,
    /** null: a type this program does not read. */
    readonly dtype: DType | null,
    readonly typeName: string,
    readonly itemBytes: number,
    /** Elements before the first one. */
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}

  toString(): string {
    return `tensor [${this.shape.join(", ")}]`;
  }
}

/** The part of a storage that a checkpoint of torch before 0.4 calls a storage of its own. */
class StorageView {
  constructor(readonly storage: Storage, readonly first: number) {}
}

/** Storage classes and scalar types by the name that torch gives them: the element type and its bytes. */
const TYPES: Readonly<Record<string, readonly [DType | null, number]>> = {
  FloatStorage: ["f32", 4],
  DoubleStorage: ["f64", 8],
  HalfStorage: ["f16", 2],
  BFloat16Storage: ["bf16", 2],
  LongStorage: ["i64", 8],
  IntStorage: ["i32", 4],
  ShortStorage: ["i16", 2],
  CharStorage: ["i8", 1],
  ByteStorage: ["u8", 1],
  BoolStorage: ["bool", 1],
  UntypedStorage: [null, 1],
  ComplexFloatStorage: [null, 8],
  ComplexDoubleStorage: [null, 16],
  QInt8Storage: [null, 1],
  QUInt8Storage: [null, 1],
  QInt32Storage: [null, 4],
  QUInt4x2Storage: [null, 1],
  QUInt2x4Storage: [null, 1],
  float32: ["f32", 4],
  float64: ["f64", 8],
  float16: ["f16", 2],
  bfloat16: ["bf16", 2],
  int64: ["i64", 8],
  int32: ["i32", 4],
  int16: ["i16", 2],
  int8: ["i8", 1],
  uint8: ["u8", 1],
  uint16: ["u16", 2],
  uint32: ["u32", 4],
  uint64: ["u64", 8],
  bool: ["bool", 1],
};

function typeOf(value: unknown): readonly [DType | null, number] | null {
  const match = value instanceof Global ? /^torch(?:\.cuda|\.storage)?\.(\w+)$/.exec(value.name) : null;
  return match && Object.hasOwn(TYPES, match[1]) ? TYPES[match[1]] : null;
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** Entries of dicts that are made from lists of pairs, each of which a pickle can name again and again. */
const MAX_PAIRS = 1_000_000;

type Call = (args: readonly unknown[]) => unknown;

/** Collects the storages and the calls of one pickle. */
export class TorchHooks implements PickleHooks {
  readonly storages = new Map<string, Storage>();
  /** Names that the pickle calls and that this program does not know, in order. */
  readonly neverCalled = new Set<string>();

  #pairs = 0;

  readonly #known: ReadonlyMap<string, Call> = new Map<string, Call>([
    ["collections.OrderedDict", (args) => this.#dict(args)],
    ["collections.Counter", (args) => this.#dict(args)],
    ["collections.defaultdict", () => new Map()],
    ["builtins.dict", (args) => this.#dict(args)],
    ["__builtin__.dict", (args) => this.#dict(args)],
    ...["list", "tuple", "set", "frozenset"].flatMap((name): [string, Call][] => {
      return [[`builtins.${name}`, listFrom], [`__builtin__.${name}`, listFrom]];
    }),
    ["torch.Size", listFrom],
    ["torch.device", (args) => args.every((part) => typeof part === "string" || isCount(part)) ? args.join(":") : null],
    ["torch._utils._rebuild_tensor", (args) => tensorOf(args)],
    ["torch._utils._rebuild_tensor_v2", (args) => tensorOf(args)],
    ["torch._utils._rebuild_tensor_v3", (args) => tensorOf(args, args[6])],
    ["torch._utils._rebuild_parameter", ([data]) => data],
    ["torch._utils._rebuild_parameter_with_state", ([data]) => data],
    ["torch.nn.parameter.Parameter", ([data]) => data],
    ["torch.nn.parameter.Buffer", ([data]) => data],
  ]);

  call(callee: unknown, args: readonly unknown[]): unknown {
    let [name, given] = [nameOf(callee), args];
    // A subclass of Tensor: the call that makes the plain tensor stands inside.
    if (name === "torch._tensor._rebuild_from_type_v2" && Array.isArray(args[2])) {
      [name, given] = [nameOf(args[0]), args[2]];
    }
    const known = callee instanceof Global ? this.#known.get(name) : undefined;
    if (known) return known(given) ?? null;
    if (this.neverCalled.size < 100) this.neverCalled.add(name);
    return new Opaque(name);
  }

  /** `("storage", type, key, location, count[, view])`. */
  persistent(id: unknown): unknown {
    if (!Array.isArray(id) || id[0] !== "storage") return new Opaque("a persistent object");
    const [, kind, key, , count, view] = id;
    const type = typeOf(kind);
    if (!type) return new Opaque(nameOf(kind));
    if (typeof key !== "string" && !isCount(key) || !isCount(count) || !isCount(count * type[1])) {
      throw new SyntaxError("the description of a storage is malformed");
    }
    const storage = { key: String(key), dtype: type[0], typeName: nameOf(kind), itemBytes: type[1], count };
    const known = this.storages.get(storage.key);
    if (known && known.count * known.itemBytes !== count * type[1]) {
      throw new SyntaxError(`storage "${printable(storage.key)}" has two sizes`);
    }
    if (!known) this.storages.set(storage.key, storage);
    if (!Array.isArray(view)) return new StorageView(storage, 0);
    if (!isCount(view[1])) throw new SyntaxError("the description of a storage is malformed");
    return new StorageView(storage, view[1]);
  }

  /** Pairs, a dict, or nothing. */
  #dict([pairs]: readonly unknown[]): Map<unknown, unknown> {
    if (pairs instanceof Map) return pairs;
    const dict = new Map<unknown, unknown>();
    if (!Array.isArray(pairs)) return dict;
    if ((this.#pairs += pairs.length) > MAX_PAIRS) {
      throw new SyntaxError(`its dicts are given more than ${MAX_PAIRS} pairs`);
    }
    for (const pair of pairs) if (Array.isArray(pair)) dict.set(pair[0], pair[1]);
    return dict;
  }
}

const nameOf = (value: unknown): string => {
  return value instanceof Global || value instanceof Opaque ? value.name : "something that is no function";
};

/** `(storage, offset, shape, strides, …)`; a storage that is none makes a tensor that cannot be read. */
function tensorOf([view, offset, shape, strides]: readonly unknown[], scalar?: unknown): TorchTensor | Opaque {
  if (view instanceof Opaque) return view;
  const sizes = (list: unknown): list is number[] => {
    return Array.isArray(list) && list.length <= MAX_RANK && list.every(isCount);
  };
  if (!(view instanceof StorageView && isCount(offset) && sizes(shape) && sizes(strides))) {
    throw new SyntaxError("the description of a tensor is malformed");
  }
  if (shape.length !== strides.length) throw new SyntaxError("the description of a tensor is malformed");
  const { storage, first } = view;
  const type = scalar === undefined ? [storage.dtype, storage.itemBytes] as const : typeOf(scalar) ?? [null, 1];
  const typeName = scalar === undefined ? storage.typeName : nameOf(scalar);
  // Copies: a pickle can go on changing a list after it was used.
  return new TorchTensor(storage, type[0], typeName, type[1], first + offset, [...shape], [...strides]);
}

/** The list it is made from itself: copies of copies would let a short pickle take all memory. */
const listFrom: Call = ([items]) => Array.isArray(items) ? items : [];
