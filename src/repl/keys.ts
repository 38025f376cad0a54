/** Keys of a terminal, one by one, before node:readline sees them: Ctrl-R, Ctrl-C of a running line, and pasted text are ours. */
import { PassThrough } from "node:stream";
import { StringDecoder } from "node:string_decoder";

/** Who is asked about keys. */
export interface KeyListener {
  /** Takes a key; false leaves it to readline. */
  key(key: string): boolean;
}

const PASTE_BEGINS = "\x1b[200~";
const PASTE_ENDS = "\x1b[201~";

/** One key: an escape sequence, Alt with a letter, or one character. */
// deno-lint-ignore no-control-regex
const KEY = /\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b[^\x1b[O]|[^]/suy;

/** Splits what a terminal sent into keys. */
export function keysOf(text: string): string[] {
  const keys: string[] = [];
  KEY.lastIndex = 0;
  for (let match; (match = KEY.exec(text));) keys.push(match[0]);
  return keys;
}

/** Reads keys from `input` and passes them on to `stream`, which is readline's. */
export class Keys implements Disposable {
  readonly stream = new PassThrough();
  readonly #decoder = new StringDecoder("utf8");
  #pasting = false;
  readonly #take = (chunk: Uint8Array): void => this.#keys(this.#decoder.write(chunk as never));
  readonly #end = (): void => void this.stream.end();

  constructor(readonly input: NodeJS.ReadableStream, readonly listener: KeyListener) {
    input.on("data", this.#take);
    input.on("end", this.#end);
  }

  #keys(text: string): void {
    for (const key of keysOf(text)) {
      if (key === PASTE_BEGINS) this.#pasting = true;
      else if (key === PASTE_ENDS) this.#pasting = false;
      // Pasted TABs would ask for completion.
      else if (this.#pasting) this.stream.write(key === "\t" ? "  " : key === "\n" ? "\r" : key);
      else if (!this.listener.key(key)) this.stream.write(key); // one at a time: readline takes TAB for text within more
    }
  }

  [Symbol.dispose](): void {
    this.input.off("data", this.#take);
    this.input.off("end", this.#end);
    this.stream.end();
  }
}
