/** `--max-memory`: chooses tiles and threads of a run, and refuses what no choice can keep below the ceiling. */
import type { Attention, Sizes } from "../attention.ts";
import type { Backend } from "../backend.ts";
import type { Wish } from "../backends/mod.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import {
  mebibytes,
  type MemoryPlan,
  type MemoryWish,
  planMemory,
  PLANNED_BACKENDS,
  requireCountable,
} from "../memory.ts";
import type { Refusal } from "../report.ts";
import { type OpenedInputs, outputOf } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";

/** Why drivers are left alone. */
const NOT_PLANNED = `its memory cannot be planned, as --max-memory asks; that of ${PLANNED_BACKENDS.join(" and ")} can`;

/** Plans for each backend that opens, until one will do. */
export class MemoryPlanner {
  readonly ceiling: number;
  readonly #what: MemoryWish;
  #plan: MemoryPlan | null = null;
  /** The least of the backends that were tried, and what it is the least of. */
  #least: (MemoryPlan & { readonly backend: string }) | null = null;

  /** Throws UsageError where memory is not counted. */
  constructor(
    readonly invocation: Invocation,
    readonly terminal: Terminal,
    run: {
      readonly attention: Attention;
      readonly sizes: Sizes;
      readonly opened: OpenedInputs;
      readonly layered: boolean;
    },
  ) {
    const { flags, arguments: [path] } = invocation;
    const { attention, sizes, opened, layered } = run;
    requireCountable(attention, layered);
    this.ceiling = Number(flags["max-memory"]);
    const output = outputOf(flags, opened, sizes);
    const states = ["state-in", "state-out", "resume", "resume"].filter((name) => flags[name]).length;
    this.#what = {
      attention,
      sizes,
      inputs: opened.inputs,
      check: Number(flags.check),
      redraws: Number(flags.redraws),
      health: flags.health === true,
      states,
      output: output?.dtype ?? null,
      piped: output?.path === "-",
      kept: (path === "-" && !opened.onePass) || flags.encode !== undefined,
    };
  }

  /** Those of a list whose memory is known, and why others are refused. Throws UnsupportedError where none is. */
  candidates(wishes: readonly Wish[]): { readonly wishes: readonly Wish[]; readonly refused: readonly Refusal[] } {
    const known = ({ name }: Wish) => PLANNED_BACKENDS.includes(name);
    if (!wishes.some(known)) throw new UnsupportedError(wishes[0].name, NOT_PLANNED);
    const others = wishes.filter((wish) => !known(wish));
    return { wishes: wishes.filter(known), refused: others.map(({ name }) => ({ name, reason: NOT_PLANNED })) };
  }

  /** Plans for a backend. Throws UnsupportedError where nothing fits, so that the next is tried. */
  accept(backend: Backend): void {
    const { terminal, invocation: { flags } } = this;
    const found = planMemory(
      this.ceiling,
      terminal.peakBytes(),
      terminal.runtime,
      this.#what,
      backend,
      flags.tile as number | undefined,
    );
    this.#plan = found.plan;
    if (found.plan) return;
    if (!this.#least || found.least.bytes < this.#least.bytes) this.#least = { ...found.least, backend: backend.name };
    throw new UnsupportedError(backend.name, `it takes at least ${mebibytes(found.least.bytes)} here`);
  }

  /** After a backend was accepted. */
  get plan(): MemoryPlan {
    if (!this.#plan) throw new RangeError("Memory is planned when a backend is open");
    return this.#plan;
  }

  /** What to say when no backend was accepted; `error` where it was not for memory. */
  refusal(error: unknown): unknown {
    if (!this.#least || !(error instanceof UnsupportedError)) return error;
    const { bytes, threads, tileRows, backend } = this.#least;
    return new UsageError(
      `Cannot stay below ${mebibytes(this.ceiling)}: with ${threads === 1 ? "one thread" : `${threads} threads`} and ` +
        `tiles of ${tileRows} rows ${backend} takes up to ${mebibytes(bytes)}; use --max-memory ${mebibytes(bytes)}, ` +
        "fewer features or fewer rows to --check",
    );
  }
}
