/**
 * The errors somebody catches: each class is one exit code of the command line (README.md).
 * Anything else that escapes is a bug of ours and exits 70.
 *
 * Text: sentence case, no full stop, active voice; what was wrong, what was wanted, the way out.
 */

/** An error with an exit code that a caller can act on. */
export abstract class PerformerError extends Error {
  abstract readonly exitCode: number;
  override get name(): string {
    return this.constructor.name;
  }
}

/** Wrong usage: a flag, a value or a combination that cannot work (exit 2). */
export class UsageError extends PerformerError {
  readonly exitCode = 2;
}

/** An input or a weight file that cannot be read or is invalid (exit 3). */
export class InputError extends PerformerError {
  readonly exitCode = 3;
}

/** "Not me": a backend that cannot run here, with a reason a user can act on (exit 4 when it was asked for by name). */
export class UnsupportedError extends PerformerError {
  readonly exitCode = 4;
  constructor(readonly backend: string, readonly reason: string) {
    super(`Backend "${backend}" is not available: ${reason}`);
  }
}

/** Work that others have not finished yet: shards are missing (exit 5). */
export class IncompleteError extends PerformerError {
  readonly exitCode = 5;
}

/** What the program itself can do about a failed run: the same once more on a device that is opened anew, or smaller pieces. */
export type Retry = "again" | "smaller";

/** A failure that a second try may not see: device lost, out of device memory, disk full (exit 75). */
export class TransientError extends PerformerError {
  readonly exitCode = 75;
  /** null: somebody else has to do something first. */
  readonly retry: Retry | null;

  constructor(message: string, { retry = null, ...options }: ErrorOptions & { readonly retry?: Retry | null } = {}) {
    super(message, options);
    this.retry = retry;
  }
}
