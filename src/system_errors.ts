/** Errors of the operating system in words a user can act on. */
import { InputError, PerformerError, TransientError, UsageError } from "./errors.ts";

/** The system's name of an error, such as "ENOENT". */
export function code(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  ENOTDIR: "a part of the path is not a directory",
  EEXIST: "there is a file of this name",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  EROFS: "the file system is read-only",
  ELOOP: "too many symbolic links",
  ENAMETOOLONG: "the name is too long",
  EMFILE: "too many open files",
  EIO: "input/output error",
  ESTALE: "the file server has another file there by now",
  ETIMEDOUT: "the file server does not answer",
  ENFILE: "too many open files on this machine",
  EFBIG: "the file is too large for this file system",
  ENOSPC: "no space left on device",
  EDQUOT: "the disk quota is exhausted",
};

/** Faults that may be gone at the next try: of a file server, of a machine that is busy. */
const PASSING = ["EIO", "ESTALE", "ETIMEDOUT", "EMFILE", "ENFILE"];

/** A file that ends before it should. */
export function endError(path: string, end: number, missing: number): InputError {
  return new InputError(`Cannot read "${path}": it ends at byte ${end}, ${missing} more bytes were expected`);
}

/** A file that is not what it was when it was opened: another program writes to it, and may be done at a second try. */
export function changeError(path: string, before: number, now: number): TransientError {
  const how = before === now ? "other bytes were written to it" : `it had ${before} bytes and now has ${now}`;
  return new TransientError(
    `Cannot go on reading "${path}": it changed while it was read (${how}); run again when nothing writes to it`,
  );
}

/** What a failed read means to a user. */
export function readError(error: unknown, path: string): Error {
  if (error instanceof PerformerError) return error;
  const reason = REASONS[code(error) ?? ""] ?? (error as Error).message;
  const text = `Cannot read "${path}": ${reason}`;
  return PASSING.includes(code(error) ?? "")
    ? new TransientError(text, { cause: error })
    : new InputError(text, { cause: error });
}

/** A closed pipe (EPIPE) stays what it is: cli.ts ends quietly on it. `wayOut` is added where there is no room. */
export function writeError(error: unknown, path: string, wayOut = ""): Error {
  const reason = REASONS[code(error) ?? ""];
  if (error instanceof PerformerError || reason === undefined) return error as Error;
  const text = `Cannot write "${path}": ${reason}`;
  const passing = ["ENOSPC", "EDQUOT", ...PASSING].includes(code(error) ?? "");
  return passing ? new TransientError(text + wayOut, { cause: error }) : new UsageError(text, { cause: error });
}
