/**
 * Python's pickle, protocols 0 to 5 (Lib/pickle.py, Lib/pickletools.py), read as data and nothing else: a class or function
 * is a name, a call is handed to `PickleHooks.call`, which knows a few by name and makes none. A pickle is a program for a
 * machine with a stack and a memo; it has no loops, so limits on its length and its steps are limits on time and memory.
 */
import type { ByteSource } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { NeedMore, PickleBytes } from "./pickle_bytes.ts";
import { integer, readScalar } from "./pickle_scalars.ts";
import { Global, Opaque } from "./pickle_values.ts";

/** What the reader of a format makes of names; neither may run anything. */
export interface PickleHooks {
  /** The value that a persistent id stands for (a storage of torch). */
  persistent(id: unknown): unknown;
  /** The value of `callee(*args)`. */
  call(callee: unknown, args: readonly unknown[]): unknown;
}

/** Longest pickle that is read: real ones have some 100 bytes for each tensor, large ones hold arrays of numpy. */
export const MAX_PICKLE = 2 ** 28;
/** Instructions: a checkpoint of 100,000 tensors takes 3 million. */
const MAX_STEPS = 5_000_000;
/** Lists, dicts and calls, which cost the most memory. */
const MAX_MADE = 1_000_000;

/**
 * Reads the pickle at `at`, which must stop before `end`. `hooks` is called anew when the pickle turns out longer than what
 * was read at first. Throws InputError that names `label`.
 */
export async function unpickle<H extends PickleHooks>(
  source: ByteSource,
  at: number,
  end: number,
  label: string,
  hooks: () => H,
): Promise<{ value: unknown; end: number; hooks: H }> {
  const most = Math.min(end - at, MAX_PICKLE);
  for (let length = Math.min(most, 65_536);;) {
    const bytes = new Uint8Array(length);
    await source.read(bytes, at);
    const used = hooks();
    const input = new PickleBytes(bytes, at + length === end);
    try {
      const value = new Machine(input, used).run();
      return { value, end: at + input.position, hooks: used };
    } catch (error) {
      if (error instanceof SyntaxError) {
        throw new InputError(`Cannot read ${label}: ${error.message}`, { cause: error });
      }
      if (!(error instanceof NeedMore)) throw error;
      if (error.length > most) {
        const found = most < MAX_PICKLE ? "the pickle stops short" : `its pickle has more than ${MAX_PICKLE} bytes`;
        throw new InputError(`Cannot read ${label}: ${found}`, { cause: error });
      }
      length = Math.min(most, Math.max(error.length, 4 * length));
    }
  }
}

class Machine {
  #stack: unknown[] = [];
  /** Heights of the stack where a MARK stands. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();
  #made = 0;

  constructor(readonly input: PickleBytes, readonly hooks: PickleHooks) {}

  run(): unknown {
    for (let step = 0; step < MAX_STEPS; step++) {
      const code = this.input.u8();
      if (code === 0x2e) return this.#pop(); // STOP
      this.#step(code);
    }
    throw new SyntaxError(`the pickle takes more than ${MAX_STEPS} steps`);
  }

  /** One instruction, named as in pickletools. */
  #step(code: number): void {
    const { input } = this;
    switch (code) {
      case 0x80: { // PROTO
        const protocol = input.u8();
        if (protocol > 5) throw new SyntaxError(`pickle protocol ${protocol}, expected 0 to 5`);
        return;
      }
      case 0x95: // FRAME
        input.u64();
        return;
      case 0x28: // MARK
        this.#marks.push(this.#stack.length);
        return;
      case 0x30: // POP
        if (this.#marks.at(-1) === this.#stack.length) this.#marks.pop();
        else this.#pop();
        return;
      case 0x31: // POP_MARK
        this.#popMark();
        return;
      case 0x32: // DUP
        return this.#push(this.#top());
      case 0x70: // PUT
        return this.#put(integer(input.line()));
      case 0x71: // BINPUT
        return this.#put(input.u8());
      case 0x72: // LONG_BINPUT
        return this.#put(input.u32());
      case 0x94: // MEMOIZE
        return this.#put(this.#memo.size);
      case 0x67: // GET
        return this.#get(integer(input.line()));
      case 0x68: // BINGET
        return this.#get(input.u8());
      case 0x6a: // LONG_BINGET
        return this.#get(input.u32());
      case 0x98: // READONLY_BUFFER
        return;
      default:
        if (this.#holder(code) || this.#object(code)) return;
        return this.#push(readScalar(code, input));
    }
  }

  #holder(code: number): boolean {
    switch (code) {
      case 0x29: // EMPTY_TUPLE
      case 0x5d: // EMPTY_LIST
      case 0x8f: // EMPTY_SET
        return this.#pushed(this.#new([]));
      case 0x7d: // EMPTY_DICT
        return this.#pushed(this.#new(new Map()));
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: { // TUPLE3
        const items = [this.#pop()];
        while (items.length < code - 0x84) items.unshift(this.#pop());
        return this.#pushed(this.#new(items));
      }
      case 0x74: // TUPLE
      case 0x6c: // LIST
      case 0x91: // FROZENSET
        return this.#pushed(this.#new(this.#popMark()));
      case 0x64: // DICT
        return this.#pushed(this.#new(fill(new Map(), this.#popMark())));
      case 0x61: { // APPEND
        const item = this.#pop();
        return this.#append([item]);
      }
      case 0x65: // APPENDS
      case 0x90: // ADDITEMS
        return this.#append(this.#popMark());
      case 0x73: { // SETITEM
        const value = this.#pop();
        const key = this.#pop();
        return this.#set([key, value]);
      }
      case 0x75: // SETITEMS
        return this.#set(this.#popMark());
      default:
        return false;
    }
  }

  #object(code: number): boolean {
    const { input } = this;
    switch (code) {
      case 0x63: // GLOBAL
        return this.#pushed(this.#new(new Global(input.line(), input.line())));
      case 0x93: { // STACK_GLOBAL
        const name = this.#pop();
        const module = this.#pop();
        if (typeof module !== "string" || typeof name !== "string") throw new SyntaxError("a name is no text");
        return this.#pushed(this.#new(new Global(module, name)));
      }
      case 0x52: // REDUCE
      case 0x81: // NEWOBJ
      case 0x92: { // NEWOBJ_EX, which has keywords on top
        if (code === 0x92) this.#pop();
        const args = this.#pop();
        return this.#call(this.#pop(), args);
      }
      case 0x69: { // INST
        const callee = new Global(input.line(), input.line());
        return this.#call(callee, this.#popMark());
      }
      case 0x6f: { // OBJ
        const [callee, ...args] = this.#popMark();
        return this.#call(callee, args);
      }
      case 0x62: { // BUILD: attributes of dicts and lists (`_metadata` of a state dict) are passed over
        const state = this.#pop();
        const target = this.#top();
        if (target instanceof Opaque) target.state ??= state;
        return true;
      }
      case 0x50: // PERSID
        return this.#pushed(this.hooks.persistent(input.line()));
      case 0x51: // BINPERSID
        return this.#pushed(this.hooks.persistent(this.#pop()));
      default:
        return false;
    }
  }

  #call(callee: unknown, args: unknown): boolean {
    if (!Array.isArray(args)) throw new SyntaxError("the arguments of a call are no tuple");
    return this.#pushed(this.#new(this.hooks.call(callee, args)));
  }

  #append(items: unknown[]): boolean {
    const target = this.#top();
    if (Array.isArray(target)) { for (const item of items) target.push(item); }
    else if (!(target instanceof Opaque)) throw new SyntaxError("something is appended to what is no list");
    return true;
  }

  #set(items: unknown[]): boolean {
    const target = this.#top();
    if (target instanceof Map) fill(target, items);
    else if (!(target instanceof Opaque)) throw new SyntaxError("a key is set in what is no dict");
    return true;
  }

  #new<T>(value: T): T {
    if (++this.#made > MAX_MADE) throw new SyntaxError(`the pickle makes more than ${MAX_MADE} objects`);
    return value;
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #pushed(value: unknown): true {
    this.#stack.push(value);
    return true;
  }

  #top(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw new SyntaxError("the pickle takes what is not there");
    return this.#stack.at(-1);
  }

  #pop(): unknown {
    const value = this.#top();
    this.#stack.pop();
    return value;
  }

  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw new SyntaxError("the pickle takes what is not there");
    return this.#stack.splice(mark);
  }

  #put(index: unknown): void {
    if (typeof index !== "number") throw new SyntaxError("the pickle has a memo without a number");
    this.#memo.set(index, this.#top());
  }

  #get(index: unknown): void {
    if (typeof index !== "number" || !this.#memo.has(index)) throw new SyntaxError(`the pickle has no memo ${index}`);
    this.#push(this.#memo.get(index));
  }
}

function fill(dict: Map<unknown, unknown>, items: unknown[]): Map<unknown, unknown> {
  if (items.length % 2 !== 0) throw new SyntaxError("a key has no value");
  for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  return dict;
}
