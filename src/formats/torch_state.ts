/**
 * Which tensors of a checkpoint are the model's. What was saved may be a state dict, a dict around one
 * (`model_state_dict` beside `epoch` and `optimizer_state_dict`), or several of them (scFoundation's `cell`, `gene`, `rde`).
 * Names are those of the innermost state dict; several keep the way to them, joined by ".".
 */
import { InputError } from "../errors.ts";
import { entriesOf, type Holder, isHolder, keyText, metadataText, Opaque, printable } from "./pickle_values.ts";
import { TorchTensor } from "./torch_objects.ts";

/** Keys under which people put a state dict. */
const WRAPPERS = ["state_dict", "model_state_dict", "model", "net", "module"] as const;
/** What belongs to training and not to the model, by its key. */
const TRAINING = /(^|_)(optim(i[sz]ers?)?|(lr_?)?schedulers?|scaler|rng)(_|$)/i;

const MAX_TENSORS = 100_000;
const MAX_DEPTH = 32;
const MAX_ENTRIES = 1_000_000;
const MAX_NAME = 4096;
/** Values that are tried as metadata. */
const MAX_METADATA = 1000;

/** The tensors of the model by name, and what stands beside them. */
export interface TorchState {
  /** An Opaque stands where a tensor was expected. */
  readonly tensors: ReadonlyMap<string, TorchTensor | Opaque>;
  readonly metadata: ReadonlyMap<string, string>;
}

/** Finds the tensors of what was saved; throws InputError where there are none. */
export function stateOf(root: unknown, neverCalled: ReadonlySet<string>, path: string): TorchState {
  const reader = new StateReader(path, isHolder(root) ? holdersOfTensors(root, path) : new Set());
  if (root instanceof TorchTensor) reader.tensors.set("", root);
  else if (root instanceof Opaque) throw refusal(path, root.name);
  else if (isHolder(root)) reader.walk(root, "", []);
  else throw new InputError(`Cannot read "${path}": it is a pickle of one value, expected tensors`);
  const { tensors, metadata, leftOut } = reader;
  if (tensors.size === 0 || [...tensors.values()].every((tensor) => tensor instanceof Opaque)) {
    const [first] = neverCalled;
    if (first !== undefined) throw refusal(path, first);
    const only = leftOut.length > 0 ? ` but those of ${leftOut.join(", ")}` : "";
    throw new InputError(`Cannot read "${path}": it holds no tensors${only}`);
  }
  if (leftOut.length > 0) metadata.set("left_out", leftOut.join(", "));
  if (neverCalled.size > 0) metadata.set("never_called", [...neverCalled].join(", "));
  return { tensors, metadata };
}

function refusal(path: string, name: string): InputError {
  return new InputError(`Cannot read "${path}": it would call ${name}, which is never done; expected tensors`);
}

class StateReader {
  readonly tensors = new Map<string, TorchTensor | Opaque>();
  readonly metadata = new Map<string, string>();
  readonly leftOut: string[] = [];
  #entries = 0;
  #tried = 0;

  constructor(readonly path: string, readonly holding: ReadonlySet<unknown>) {}

  /** All that `holder` holds, under names that start with `prefix`; `above` are the holders around it. */
  walk(holder: Holder, prefix: string, above: readonly Holder[]): void {
    const inner = this.#unwrapped(holder, prefix);
    if (above.includes(inner)) throw new InputError(`Cannot read "${this.path}": what it holds contains itself`);
    if (above.length >= MAX_DEPTH) {
      throw new InputError(`Cannot read "${this.path}": it is nested deeper than ${MAX_DEPTH} levels`);
    }
    const isState = [...entriesOf(inner)].some(([, value]) => value instanceof TorchTensor);
    for (const [key, value] of entriesOf(inner)) {
      const name = this.#name(prefix, key);
      if (value instanceof TorchTensor || value instanceof Opaque && isState) this.#add(name, value);
      else if (isHolder(value) && this.holding.has(value) && !TRAINING.test(keyText(key))) {
        this.walk(value, `${name}.`, [...above, inner]);
      } else this.#beside(name, value);
    }
  }

  /** The innermost of the dicts that do nothing but wrap; what stands beside them goes into the metadata. */
  #unwrapped(holder: Holder, prefix: string): Holder {
    const ways: string[] = [];
    let inner = holder;
    while (inner instanceof Map && ways.length < MAX_DEPTH) {
      const dict: ReadonlyMap<unknown, unknown> = inner;
      const present = WRAPPERS.filter((key) => dict.has(key));
      const [way, ...others] = present.filter((key) => this.holding.has(dict.get(key)));
      if (way === undefined) {
        const call = present.map((key) => dict.get(key)).find((value) => value instanceof Opaque);
        if (call) throw refusal(this.path, call.name);
      }
      // Two of them are two models: both keep their keys.
      if (way === undefined || others.length > 0) break;
      for (const [key, value] of dict) if (key !== way) this.#beside(this.#name(prefix, key), value);
      inner = dict.get(way) as Holder;
      ways.push(way);
    }
    if (ways.length > 0) this.metadata.set(`${prefix}wrapper`, ways.join("."));
    return inner;
  }

  /** The full name of an entry. */
  #name(prefix: string, key: unknown): string {
    if (++this.#entries > MAX_ENTRIES) throw new InputError(`Cannot read "${this.path}": it holds too many values`);
    const name = prefix + keyText(key);
    if (name.length <= MAX_NAME) return name;
    throw new InputError(
      `Cannot read "${this.path}": it has a name of ${name.length} letters, expected at most ${MAX_NAME}`,
    );
  }

  #add(name: string, tensor: TorchTensor | Opaque): void {
    if (this.tensors.has(name)) throw new InputError(`Cannot read "${this.path}": it holds "${name}" twice`);
    if (this.tensors.size >= MAX_TENSORS) {
      throw new InputError(`Cannot read "${this.path}": it holds more than ${MAX_TENSORS} tensors`);
    }
    this.tensors.set(name, tensor);
  }

  /** What is no tensor of the model: settings and counters as text, the rest by name only. */
  #beside(name: string, value: unknown): void {
    if (value === null) return;
    const isTraining = TRAINING.test(name) || value instanceof TorchTensor || this.holding.has(value) ||
      value instanceof Opaque && !(value.state instanceof Map);
    const text = isTraining || ++this.#tried > MAX_METADATA ? null : metadataText(value);
    if (text !== null) this.metadata.set(name, text);
    else if (this.leftOut.length < 100) this.leftOut.push(printable(name));
  }
}

/** The dicts and lists from which a tensor can be reached. */
function holdersOfTensors(root: Holder, path: string): Set<unknown> {
  const around = new Map<Holder, Holder[]>([[root, []]]);
  const found: Holder[] = [];
  let entries = 0;
  // A Map may be added to while it is gone through: this visits every holder once.
  for (const holder of around.keys()) {
    let holds = false;
    for (const [, value] of entriesOf(holder)) {
      if (++entries > 4 * MAX_ENTRIES) throw new InputError(`Cannot read "${path}": it holds too many values`);
      if (value instanceof TorchTensor) holds = true;
      if (!isHolder(value)) continue;
      const outer = around.get(value);
      if (outer) outer.push(holder);
      else around.set(value, [holder]);
    }
    if (holds) found.push(holder);
  }
  const holding = new Set<unknown>(found);
  for (const holder of found) { // grows as it is gone through
    for (const outer of around.get(holder)!) {
      if (holding.has(outer)) continue;
      holding.add(outer);
      found.push(outer);
    }
  }
  return holding;
}
