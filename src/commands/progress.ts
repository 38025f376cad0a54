/** The progress line: on stderr, only on a terminal, gone when the work is done. */
import { count, duration } from "../words.ts";
import type { Terminal } from "./command.ts";

const EVERY = 100; // milliseconds between redraws

/** NO_COLOR, FORCE_COLOR, TERM=dumb and --no-color decide before the terminal does. */
export function useColor(terminal: Terminal, flags: Readonly<Record<string, unknown>>, stdout = true): boolean {
  if (flags["no-color"] || terminal.env.NO_COLOR) return false;
  if (terminal.env.FORCE_COLOR !== undefined) return terminal.env.FORCE_COLOR !== "0";
  return terminal.env.TERM !== "dumb" && (stdout ? terminal.stdoutTTY : terminal.stderrTTY);
}

export class Progress {
  readonly #enabled: boolean;
  readonly #unit: string;
  #stage = "";
  #started = 0;
  #drawn = 0;
  #shown = false;

  constructor(readonly terminal: Terminal, options: { enabled: boolean; unit?: string }) {
    this.#unit = options.unit ?? "rows";
    this.#enabled = options.enabled && terminal.stderrTTY && terminal.env.TERM !== "dumb";
    if (this.#enabled) this.#draw("reading …");
  }

  /** Rows (or other units) done of `total` in this stage. */
  update(stage: string, done: number, total: number): void {
    if (!this.#enabled) return;
    const now = performance.now();
    if (stage !== this.#stage) [this.#stage, this.#started] = [stage, now];
    if (now - this.#drawn < EVERY && done < total) return;
    this.#drawn = now;
    const seconds = (now - this.#started) / 1000;
    const rate = done / seconds;
    const left = seconds > 0.3 && done < total ? ` · ${duration((total - done) / rate)} left` : "";
    const speed = seconds > 0.3 ? ` · ${count(rate)} ${this.#unit}/s` : "";
    this.#draw(
      `${stage} ${count(done)} of ${count(total)} (${Math.floor(100 * done / Math.max(1, total))} %)${speed}${left}`,
    );
  }

  clear(): void {
    if (this.#shown) this.terminal.err("\r\x1b[K");
    this.#shown = false;
  }

  #draw(text: string): void {
    this.terminal.err(`\r\x1b[K${text.slice(0, Math.max(20, this.terminal.columns - 1))}`);
    this.#shown = true;
  }
}
