/**
 * No attention at all (`--features none`): every row sees itself alone, so that the output is V. One pass that only reads and writes:
 * what files and pipes take when there is nothing to compute.
 */
import { NO_COUNTS, type SessionCounts } from "./backend.ts";
import type { Checked } from "./check.ts";
import { UsageError } from "./errors.ts";
import { Run } from "./run_base.ts";
import { timed } from "./timing.ts";

export class NoneRun extends Run {
  readonly parameters = null;

  /** Throws UsageError where rows of V are not rows of the output. */
  async attend(): Promise<SessionCounts> {
    const { inputs, backend } = this.options;
    const { queryRows, keyRows, heads, kvHeads } = this.sizes;
    if (queryRows !== keyRows || heads !== kvHeads) {
      throw new UsageError(
        `Cannot use --features none with ${queryRows} queries of ${heads} heads and ${keyRows} values of ${kvHeads}: ` +
          "every row sees itself alone, so there must be as many of both",
      );
    }
    const { rest: { queries }, options: { journal }, last } = this;
    if (last) this.requireOwn(last, { approx: 0, state: null });
    const tiles = inputs.valueTiles(this.shape.tileRows, backend.limits.precision, this.store, queries);
    for await (const v of timed(this.watch, this.reading, tiles)) {
      await this.write(v);
      const done = v.start + v.rows;
      this.step("rows", done, queryRows);
      if (journal?.due || done === queryRows) await journal?.save(this.checkpoint(keyRows, done, NO_COUNTS));
      await this.breathe();
    }
    return { ...NO_COUNTS };
  }

  /** There is no estimate whose error could be told. */
  async check(): Promise<Checked> {
    return { error: null, health: null };
  }
}
