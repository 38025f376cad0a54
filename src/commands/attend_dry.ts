/** The story of `attend --dry-run` and `explain`: open everything, say what would be done, predict. */
import { forecast, PLAN_SCHEMA } from "../forecast.ts";
import { forecastText } from "../exporters/forecast.ts";
import { UsageError } from "../errors.ts";
import { DTYPE_BYTES } from "../tensor.ts";
import { outputOf } from "./attend_files.ts";
import { openAttention } from "./attend_open.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";
import { formatOf, jsonText, linesOf } from "./machine.ts";
import { useColor } from "./progress.ts";
import { continued } from "./state_flags.ts";

/** Says what a run would do; returns the exit code. Nothing but the report is written, on stdout. */
export async function runDry(asked: Invocation, terminal: Terminal): Promise<number> {
  const { invocation, before } = await continued(asked);
  const { arguments: [path], flags } = invocation;
  const format = formatOf(invocation);
  const lines = linesOf(invocation, terminal, PLAN_SCHEMA);
  if (format === "csv" || format === "md") {
    throw new UsageError(`Cannot use --dry-run with --format ${format}: expected text, json or jsonl`);
  }
  await using open = new AsyncDisposableStack();
  const opening = await openAttention(invocation, terminal, open, before);
  const { chosen, attention, opened, sizes, backend, refused, tileRows, memory } = opening;
  const columns = chosen ? { heads: 1, valueDim: chosen.layout.out.outputs } : {};
  const output = outputOf(flags, opened, { ...sizes, ...columns });
  const { inputs } = opened;
  const piped = path === "-";
  const report = await forecast({
    inputs,
    sizes,
    attention,
    before,
    backend,
    refused,
    tileRows,
    memory,
    check: Number(flags.check),
    redraws: Number(flags.redraws),
    health: flags.health === true,
    encoding: (flags.encode as string | undefined) ?? null,
    output: output && { path: output.path === "-" ? "stdout" : output.path, dtype: output.dtype, shape: output.shape },
    written: output ? output.shape.reduce((product, n) => product * n, DTYPE_BYTES[output.dtype]) : 0,
    spooled: piped && !opened.onePass ? inputs.q.info.byteLength : 0,
    mayTry: !piped && !chosen,
    speed: async () => {
      const { measureSpeed, SpeedCache } = await import("../backends/speed.ts");
      const threads = flags.threads as number | undefined;
      const kept = (await new SpeedCache(speedsFile(terminal.env), threads).read())[backend.name];
      if (kept !== undefined) return { kind: "kept", flopsPerSecond: kept * 1e9 };
      return { kind: "measured", flopsPerSecond: await measureSpeed(backend) };
    },
    peakBytes: terminal.peakBytes,
    signal: terminal.signal,
  });
  terminal.found?.(report);
  if (lines) lines.end(report);
  else if (format === "json") terminal.out(jsonText(report));
  else if (!flags.quiet) terminal.out(forecastText(report, useColor(terminal, flags)));
  return 0;
}
