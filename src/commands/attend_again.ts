/**
 * Second tries of `attend`: a device that was lost is opened anew, once, and too little memory is met with smaller tiles. The whole run is
 * done again, which needs inputs that can be read again and an output of which nobody has seen anything.
 */
import { changeTime, isPlainFile } from "../bytes.ts";
import { type Retry, TransientError } from "../errors.ts";
import { plain } from "../words.ts";
import type { Invocation } from "./command.ts";

/** One try. */
export interface Attempt {
  /** Rows per tile: to begin with what is to be used instead of `--tile`, then what was used. */
  tileRows?: number;
}

/** Fewer rows in a tile are not tried: what does not fit then is not the tile. */
const LEAST_ROWS = 64;
/** How much smaller the next tile is. */
const FACTOR = 4;

/** Runs until it succeeds, or until nothing is left to try; `tell` says on standard error why it takes longer. */
export async function patiently<T>(
  invocation: Invocation,
  tell: (words: string) => void,
  run: (attempt: Attempt) => Promise<T>,
): Promise<T> {
  const attempt: Attempt = {};
  const tried: Retry[] = [];
  for (;;) {
    try {
      return await run(attempt);
    } catch (error) {
      const next = error instanceof TransientError ? nextOf(error, attempt, tried, invocation) : null;
      if (!next) throw tried.length > 0 && error instanceof TransientError ? givenUp(error, attempt, tried) : error;
      tried.push(next.retry);
      attempt.tileRows = next.tileRows;
      if (invocation.flags.quiet !== true) tell(`performer: ${plain((error as Error).message, 2000)}; ${next.words}\n`);
    }
  }
}

interface Next extends Attempt {
  readonly retry: Retry;
  readonly words: string;
}

function nextOf({ retry }: TransientError, { tileRows }: Attempt, tried: Retry[], invocation: Invocation): Next | null {
  if (retry === null || !mayRepeat(invocation)) return null;
  if (retry === "again") {
    const again = { retry, words: "opening it anew and trying once more" };
    return tried.includes("again") ? null : tileRows && tried.includes("smaller") ? { ...again, tileRows } : again;
  }
  if (invocation.flags.resume === true) return null; // a journal goes on with the tiles that it was begun with
  const smaller = Math.max(LEAST_ROWS, Math.floor((tileRows ?? 0) / FACTOR));
  if (!tileRows || smaller >= tileRows) return null;
  return { retry, tileRows: smaller, words: `trying again with tiles of ${smaller} rows` };
}

/** Whether inputs can be read again, and nothing of the output has gone out. */
function mayRepeat({ arguments: paths, flags }: Invocation): boolean {
  const inputs = [...paths, flags.q, flags.k, flags.v, flags.mask, flags["state-in"]].filter((path) =>
    path !== undefined
  ).map(String);
  const { output } = flags;
  return inputs.every((path) => path !== "-" && isPlainFile(path)) &&
    (output === undefined || (output !== "-" && (isPlainFile(String(output)) || isNew(String(output)))));
}

const isNew = (path: string) => changeTime(path) === null;

function givenUp(error: TransientError, { tileRows }: Attempt, tried: readonly Retry[]): TransientError {
  const what = tried.includes("smaller") ? `tiles down to ${tileRows} rows were tried` : "it was tried twice";
  return new TransientError(`${error.message} (${what}; another --backend may do)`, { cause: error });
}
