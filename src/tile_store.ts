/** Tiles and outputs of a run: who may use which memory until when. */
import type { Backend } from "./backend.ts";
import type { TileMemory } from "./inputs.ts";
import { type FloatArray, floats, type TensorSource } from "./tensor.ts";

/** Memory for tiles and outputs that calls in flight still use, in the backend's own memory where that saves copies. */
export class TileStore implements TileMemory, Disposable {
  readonly #sources = new Map<TensorSource, FloatArray[]>();
  readonly #outputs: FloatArray[] = [];
  /** What the backend lent. */
  readonly #memory: LentMemory;

  /** `depth`: tiles of one source that may be in use at once. */
  constructor(backend: Backend, readonly tileRows: number, readonly depth: number) {
    this.#memory = new LentMemory(backend);
  }

  for(source: TensorSource): readonly FloatArray[] {
    let memory = this.#sources.get(source);
    if (!memory) {
      const length = Math.min(this.tileRows, source.info.rows) * source.info.heads * source.info.width;
      memory = Array.from({ length: this.depth }, () => this.#memory.array(length));
      this.#sources.set(source, memory);
    }
    return memory;
  }

  /** Makes memory for outputs of up to `length` numbers. */
  reserveOutputs(length: number): void {
    for (let i = 0; i < this.depth; i++) this.#outputs.push(this.#memory.array(length));
  }

  /** Memory for one output; at most `depth` are out at once. */
  output(): FloatArray {
    return this.#outputs.pop()!;
  }

  /** Takes back the memory of an output that has been written. */
  giveBack(output: FloatArray): void {
    this.#outputs.push(output);
  }

  /** Gives the backend its memory back; no call may be in flight. */
  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}

/** Arrays in a backend's own memory where it lends some, which go back together. */
export class LentMemory implements Disposable {
  readonly #lent: FloatArray[] = [];

  constructor(readonly backend: Backend) {}

  /** `length` numbers in the backend's precision, not cleared; call it while no session is at work. */
  array(length: number): FloatArray {
    const lent = this.backend.allocate?.(length);
    if (lent) this.#lent.push(lent);
    return lent ?? floats(this.backend.limits.precision, length);
  }

  /** Gives the backend its memory back; no call may be in flight. */
  [Symbol.dispose](): void {
    for (const array of this.#lent.splice(0)) this.backend.release?.(array);
  }
}
