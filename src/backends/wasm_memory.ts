/** The shared memory of a wasm backend and who owns which part of it. */
import { TransientError, UnsupportedError } from "../errors.ts";
import type { FloatArray } from "../tensor.ts";

const PAGE = 65_536;
/** 4 GiB: all that 32-bit addresses reach. */
const MOST_PAGES = 65_536;
/** Pages that a memory starts with and grows by at least: growing costs Bun 0.5 ms each time, untouched pages nothing. */
const FIRST_PAGES = 512;
const MORE_PAGES = 128;
/** Areas start on lines of their own, far enough apart that threads never share one. */
const ALIGNMENT = 4096;

interface Area {
  readonly start: number;
  bytes: number;
}

/** Hands out areas of one shared WebAssembly.Memory, which only ever grows. Byte counts, never element counts. */
export class SharedMemory {
  readonly memory: WebAssembly.Memory;
  /** Free areas by start, none touching another. */
  #free: Area[] = [];
  #end = ALIGNMENT; // address 0 stays unused: it means "none"
  readonly #used = new Map<number, number>();
  /** Buffers of lent arrays: every growth makes a new one. */
  readonly #lent = new Set<ArrayBufferLike>();

  /** Pages it can grow to. */
  readonly #most: number;

  constructor() {
    const { memory, maximum } = reserve();
    this.memory = memory;
    this.#most = maximum;
  }

  get byteLength(): number {
    return this.memory.buffer.byteLength;
  }

  /**
   * An area of at least `bytes`, not cleared. Grows the memory when needed: call it only while no kernel runs
   * (V8 does not show a growth to a function that is running). Throws TransientError when 4 GiB or the machine is full.
   */
  allocate(bytes: number): number {
    const size = Math.max(ALIGNMENT, Math.ceil(bytes / ALIGNMENT) * ALIGNMENT);
    const at = this.#free.findIndex((area) => area.bytes >= size);
    if (at >= 0) {
      const area = this.#free[at];
      if (area.bytes === size) this.#free.splice(at, 1);
      else this.#free[at] = { start: area.start + size, bytes: area.bytes - size };
      this.#used.set(area.start, size);
      return area.start;
    }
    const start = this.#end;
    const missing = start + size - this.byteLength;
    if (missing > 0) this.#grow(Math.ceil(missing / PAGE));
    this.#end = start + size;
    this.#used.set(start, size);
    return start;
  }

  /** Gives an area back. */
  release(start: number): void {
    const bytes = this.#used.get(start);
    if (bytes === undefined) throw new Error(`release of ${start}, which is not allocated`);
    this.#used.delete(start);
    this.#free.push({ start, bytes });
    this.#free.sort((a, b) => a.start - b.start);
    const joined: Area[] = [];
    for (const area of this.#free) {
      const last = joined.at(-1);
      if (last && last.start + last.bytes === area.start) last.bytes += area.bytes;
      else joined.push({ ...area });
    }
    const last = joined.at(-1);
    if (last && last.start + last.bytes === this.#end) {
      this.#end = last.start;
      joined.pop();
    }
    this.#free = joined;
  }

  /** An array that kernels work on in place, for as long as the memory lives. */
  lend(length: number): Float32Array<ArrayBuffer> {
    const array = this.floats(this.allocate(length * 4), length);
    this.#lent.add(array.buffer);
    return array;
  }

  /** Address of an array that was lent, or of a part of it; null for all others. */
  addressOf(array: FloatArray): number | null {
    return this.#lent.has(array.buffer) ? array.byteOffset : null;
  }

  /** Address of some numbers: where they are, if they were lent, else the area they are copied to. */
  put(area: number, data: FloatArray): number {
    const at = this.addressOf(data);
    if (at !== null) return at;
    this.floats(area, data.length).set(data);
    return area;
  }

  /** Numbers that stay as they are until their call settles: lent ones do, others are copied. */
  keep(data: FloatArray): FloatArray {
    return this.addressOf(data) === null ? data.slice() : data;
  }

  floats(at: number, length: number): Float32Array<ArrayBuffer> {
    // The standard types know no shared buffer here; nothing below depends on the difference.
    return new Float32Array(this.memory.buffer as ArrayBuffer, at, length);
  }

  integers(at: number, length: number): Int32Array<ArrayBuffer> {
    return new Int32Array(this.memory.buffer as ArrayBuffer, at, length);
  }

  doubles(at: number, length: number): Float64Array<ArrayBuffer> {
    return new Float64Array(this.memory.buffer as ArrayBuffer, at, length);
  }

  #grow(pages: number): void {
    try {
      const room = this.#most - this.byteLength / PAGE;
      this.memory.grow(Math.max(pages, Math.min(MORE_PAGES, room)));
    } catch {
      const wanted = Math.ceil((this.byteLength + pages * PAGE) / 2 ** 20);
      throw new TransientError(
        `Cannot get ${wanted} MiB of memory for the wasm backend: give it smaller pieces with --tile, or fewer features`,
        { retry: "smaller" },
      );
    }
  }
}

/** Reserves address space; a system that limits it may grant less than 4 GiB. */
function reserve(): { memory: WebAssembly.Memory; maximum: number } {
  for (let maximum = MOST_PAGES; maximum >= 4096; maximum /= 2) {
    try {
      return { memory: new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared: true }), maximum };
    } catch {
      continue;
    }
  }
  throw new UnsupportedError("wasm", "this system grants no shared memory, not even 256 MiB of address space");
}
