/** Where lines of a session work: its temporary folder, what stops the running line, and the world of commands. */
import { join } from "node:path";
import { temporaries, temporaryFolder } from "../bytes.ts";
import type { Terminal } from "../commands/command.ts";

export class Workspace implements Disposable {
  /** The folder of temporary files, once there is one. */
  folder: string | null = null;
  #files = 0;
  /** Aborts the running line. */
  signal: AbortSignal = new AbortController().signal;

  constructor(readonly terminal: Terminal) {}

  /** Whether a file is one of the session's own. */
  readonly owns = (path: string): boolean => this.folder !== null && path.startsWith(`${this.folder}/`);

  /** A name for a new file of the session. */
  newPath(suffix: string): string {
    this.folder ??= temporaryFolder("performer-session");
    return join(this.folder, `${++this.#files}${suffix}`);
  }

  /** Removes all of it. */
  [Symbol.dispose](): void {
    if (this.folder !== null) temporaries.remove(this.folder);
    this.folder = null;
  }
}
