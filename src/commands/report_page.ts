/** `--report FILE.html`: where the page goes, and what it is told of the run beside its report. Loaded only when asked for. */
import os from "node:os";
import { type ByteSink, openOutput } from "../bytes.ts";
import { requireDrawing } from "../charts/draw.ts";
import { UsageError } from "../errors.ts";
import type { PageContext } from "../exporters/html.ts";
import { VERSION } from "../version.ts";
import { bytesText, shellLine } from "../words.ts";
import type { Invocation, Terminal } from "./command.ts";

/** Pages in the making: opened before anything is computed, so that a place that cannot be written is told first. */
export class ReportPage implements AsyncDisposable {
  private constructor(readonly sink: ByteSink, readonly context: PageContext) {}

  /** Throws UsageError for a name that is no page, a place that cannot be written, or where the drawing is not installed. */
  static async open(path: string, invocation: Invocation, terminal: Terminal): Promise<ReportPage> {
    if (!/\.html?$/i.test(path)) {
      throw new UsageError(`Cannot use --report ${path}: expected a name that ends in .html`);
    }
    await requireDrawing(false);
    return new ReportPage(openOutput(path), contextOf(invocation, terminal));
  }

  /** Writes the page, which appears under its name only now. */
  async write(page: string): Promise<void> {
    await this.sink.write(new TextEncoder().encode(page), 0);
    await this.sink.commit();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.sink[Symbol.asyncDispose]();
  }
}

/** The page that the flags ask for; null without --report. */
export async function openReportPage(invocation: Invocation, terminal: Terminal): Promise<ReportPage | null> {
  const { report } = invocation.flags;
  return report === undefined ? null : await ReportPage.open(String(report), invocation, terminal);
}

function contextOf({ line }: Invocation, { runtime }: Terminal): PageContext {
  return {
    command: shellLine(["performer", ...line]),
    environment: [
      ["performer", VERSION],
      ["runtime", runtime],
      ["processor", `${os.cpus()[0]?.model ?? "unknown"} × ${os.availableParallelism()}`],
      ["memory", bytesText(os.totalmem())],
      ["system", `${os.type()} ${os.release()} ${os.arch()}`],
      ["date", new Date().toISOString().replace("T", " ").replace(/\..*/, " UTC")],
    ],
  };
}
