/** Lines of earlier sessions: one JSON text a line, so that an entry may hold line breaks. */
import { join } from "node:path";
import { makeFolder, readText, writeText } from "../bytes.ts";
import type { Terminal } from "../commands/command.ts";
import { PerformerError } from "../errors.ts";

/** Entries that are kept. */
const MOST = 2000;

/** `$XDG_STATE_HOME/performer/history`, `~/.local/state/performer/history`; null where there is no home. */
function placeOf({ env }: Terminal): string | null {
  const folder = env.XDG_STATE_HOME || (env.HOME ? join(env.HOME, ".local", "state") : "");
  return folder ? join(folder, "performer", "history") : null;
}

export class History {
  /** Oldest first. */
  readonly entries: string[] = [];
  #added: string[] = [];

  private constructor(readonly path: string | null) {}

  /** Reads the history; an unreadable one is empty. */
  static async open(terminal: Terminal, enabled: boolean): Promise<History> {
    const history = new History(enabled ? placeOf(terminal) : null);
    history.entries.push(...await history.#read());
    return history;
  }

  add(entry: string): void {
    if (entry.trim() === "" || entry === this.entries.at(-1)) return;
    this.entries.push(entry);
    this.#added.push(entry);
  }

  /** Keeps what was added, behind what other sessions have added meanwhile. */
  async save(): Promise<void> {
    if (this.path === null || this.#added.length === 0) return;
    const all = [...await this.#read(), ...this.#added].slice(-MOST);
    this.#added = [];
    try {
      await makeFolder(join(this.path, ".."));
      await writeText(this.path, all.map((entry) => `${JSON.stringify(entry)}\n`).join(""));
    } catch (error) {
      if (!(error instanceof PerformerError) && (error as { code?: string }).code === undefined) throw error;
    }
  }

  async #read(): Promise<string[]> {
    if (this.path === null) return [];
    try {
      return (await readText(this.path)).split("\n").flatMap((line) => {
        try {
          const entry: unknown = JSON.parse(line);
          return typeof entry === "string" ? [entry] : [];
        } catch {
          return []; // a line that another program spoilt
        }
      });
    } catch (error) {
      if (error instanceof PerformerError) return [];
      throw error;
    }
  }
}
