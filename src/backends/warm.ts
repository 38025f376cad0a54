/** Backends that stay open between lines of a session and between inputs of a batch, with their threads and compiled kernels. */
import type { Backend } from "../backend.ts";
import { openFirst, type OpenSettings, type Wish } from "./mod.ts";
import { UnsupportedError } from "../errors.ts";

interface Opened {
  readonly backend: Backend;
  readonly refused: { name: string; reason: string }[];
}

/** `auto` chooses otherwise from this many operations on; it is one of the words by which a kept backend is found. */
const MUCH_WORK = 1e10;

export class WarmBackends implements AsyncDisposable {
  readonly #opened = new Map<string, Opened>();

  /** As `openFirst`, but what it returns stays open when it is disposed of, and is returned again. */
  readonly open = async (wishes: readonly Wish[], settings: OpenSettings = {}): Promise<Opened> => {
    const { threads, profile, eager, nearFar, hybrid, work = Infinity, accept } = settings;
    const key = JSON.stringify([wishes, threads, profile, eager, nearFar, hybrid, work >= MUCH_WORK]);
    const kept = this.#opened.get(key);
    if (kept?.backend.lost) {
      this.#opened.delete(key);
      await kept.backend[Symbol.asyncDispose]();
    }
    const known = this.#opened.get(key);
    if (known && accepts(known.backend, accept)) return lent(known);
    const opened = await openFirst(wishes, settings);
    if (known) return opened; // another one is kept under this key
    this.#opened.set(key, opened);
    return lent(opened);
  };

  /** What is open, in words. */
  get names(): string[] {
    return [...new Set([...this.#opened.values()].map(({ backend }) => `${backend.name} · ${backend.device}`))];
  }

  /** Gives up the open backends without waiting for what they are at. */
  abandon(): void {
    for (const { backend } of this.#opened.values()) backend[Symbol.asyncDispose]().then(undefined, () => {});
    this.#opened.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { backend } of this.#opened.values()) await backend[Symbol.asyncDispose]();
    this.#opened.clear();
  }
}

function accepts(backend: Backend, accept?: (backend: Backend) => void): boolean {
  try {
    accept?.(backend);
    return true;
  } catch (error) {
    if (error instanceof UnsupportedError) return false;
    throw error;
  }
}

/** The same backend, but disposing of it leaves it open. */
function lent({ backend, refused }: Opened): Opened {
  const borrowed = new Proxy(backend, {
    get(target, name) {
      if (name === Symbol.asyncDispose) return async () => {};
      const found = Reflect.get(target, name, target);
      return typeof found === "function" ? found.bind(target) : found;
    },
  });
  return { backend: borrowed, refused: [...refused] };
}
