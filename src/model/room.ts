/** Arrays used again and again, in memory that the backend reads in place where it has such memory. */
import type { Backend } from "../backend.ts";
import { type FloatArray, floats } from "../tensor.ts";

/** Larger arrays are not asked of the backend: its memory may end at 4 GiB. */
const MOST_LENT = 2 ** 27;

/** One array per role; a role that needs more gets a new one. Take arrays only while nothing is in flight. */
export class Room implements Disposable {
  readonly #arrays = new Map<string, { readonly array: FloatArray; readonly lent: boolean }>();

  constructor(readonly backend: Backend) {}

  /** `length` numbers for `role`, not cleared; what the role had before is lost when it has to grow. */
  take(role: string, length: number): FloatArray {
    const known = this.#arrays.get(role);
    if (known && known.array.length >= length) return known.array.subarray(0, length);
    if (known) this.#give(known);
    const lent = this.backend.allocate !== undefined && length <= MOST_LENT;
    const array = lent ? this.backend.allocate!(length) : floats(this.backend.limits.precision, length);
    this.#arrays.set(role, { array, lent });
    return array.subarray(0, length);
  }

  #give({ array, lent }: { readonly array: FloatArray; readonly lent: boolean }): void {
    if (lent) this.backend.release?.(array);
  }

  [Symbol.dispose](): void {
    for (const known of this.#arrays.values()) this.#give(known);
    this.#arrays.clear();
  }
}
