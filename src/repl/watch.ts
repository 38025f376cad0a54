/** `watch`: a command that is run again when a file that it reads, or a setting, changes. */
import { changeTime } from "../bytes.ts";
import { useColor } from "../commands/progress.ts";
import { UsageError } from "../errors.ts";
import { scaleOf } from "../plots/axis.ts";
import { sparkline } from "../plots/rows.ts";
import { figure } from "../words.ts";
import type { Session } from "./session.ts";
import type { ReportValue } from "./values.ts";

/** Milliseconds between looks at the files. */
const EVERY = 300;
/** Bars of the line of errors. */
const BARS = 40;

/** A command that is watched. */
export interface Watch {
  readonly line: string;
  /** Whether it has to be run again. */
  readonly due: boolean;
  /** Runs it, and shows its errors so far. */
  run(): Promise<number>;
  /** Settings have changed. */
  touch(): void;
  stop(): void;
}

/** Runs the command of a `watch` line, and goes on to watch it. */
export async function startWatch(session: Session, line: string): Promise<number> {
  const command = line.trim().replace(/^watch\s+/, "");
  if (!/^(attend|compare|tune)\b/.test(command)) {
    throw new UsageError(`Cannot watch "${command}": expected attend, compare or tune with its arguments`);
  }
  const watch = new WatchedCommand(session, command);
  const code = await watch.run();
  session.watches = [...session.watches, watch];
  watch.start();
  session.world.out(
    `watching ${watch.paths.join(", ") || "the settings"}; :set and saved files run it again, :unwatch ends it\n`,
  );
  return code;
}

class WatchedCommand implements Watch {
  due = false;
  paths: readonly string[] = [];
  #times: readonly (number | null)[] = [];
  #timer: ReturnType<typeof setInterval> | null = null;
  readonly #errors: number[] = [];

  constructor(readonly session: Session, readonly line: string) {}

  start(): void {
    this.#timer = setInterval(() => {
      if (this.paths.some((path, i) => changeTime(path) !== this.#times[i])) {
        this.due = true;
        this.session.onDue?.();
      }
    }, EVERY);
    // A session that has nothing else to do ends.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  touch(): void {
    this.due = true;
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  async run(): Promise<number> {
    const { session, line } = this;
    this.due = false;
    const { code, report, paths } = await session.runWatched(line);
    this.paths = paths;
    this.#times = paths.map(changeTime);
    const error = report && errorOf(report);
    if (error !== null && Number.isFinite(error)) this.#errors.push(error);
    const shown = this.#errors.slice(-BARS);
    if (shown.length > 0) {
      const { world } = session;
      const style = { columns: world.columns, ascii: world.env.TERM === "dumb", color: useColor(world, {}) };
      const bars = sparkline(shown, BARS, style, "linear", scaleOf("linear", [0, ...shown]));
      world.out(
        `  error ${bars} ${figure(shown.at(-1)!)}${shown.length > 1 ? ` · before ${figure(shown.at(-2)!)}` : ""}\n`,
      );
    }
    return code;
  }
}

/** The error that a report is about: of attend, of the best of compare, of what tune held out. */
function errorOf({ report }: ReportValue): number | null {
  const { error, best, heldOut } = report as Record<string, { relativeL2?: unknown } | null | undefined>;
  const found = (error ?? best ?? heldOut)?.relativeL2;
  const value = typeof found === "object" && found !== null ? (found as { value?: unknown }).value : found;
  return typeof value === "number" ? value : null;
}
