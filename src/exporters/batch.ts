/** A batch for people: a line per input, and what all come to. */
import type { BatchRecord, BatchSummary } from "../batch.ts";
import { bytesText, count, duration, figure, plain } from "../words.ts";

/** One line; of failures there is a word on standard error instead. */
export function batchLine({ input, output, status, rows, heads, headDim, error, exceeds }: BatchRecord): string {
  const path = plain(input);
  if (status === "skipped") return `${path} · skipped: ${plain(output ?? "")} is there\n`;
  const parts = [
    output === null ? path : `${path} → ${plain(output)}`,
    `${count(rows!)} row${rows === 1 ? "" : "s"} × ${heads} × ${headDim}`,
    ...(error ? [`relative L2 ${figure(error.relativeL2.value)}`, `skill ${error.skill.toFixed(3)}`] : []),
    ...(exceeds ? ["above --max-error"] : []),
  ];
  return parts.join(" · ") + "\n";
}

/** The words after the last input. */
export function batchText(summary: BatchSummary, color: boolean): string {
  const { list, output, backend, inputs, done, skipped, failed, left, exceeded, rows, error } = summary;
  const paint = (code: number, end: number, text: string) => color ? `\x1b[${code}m${text}\x1b[${end}m` : text;
  const line = (name: string, words: string) => `  ${paint(2, 22, name.padEnd(12))} ${words}\n`;
  const parts = [
    `${count(done)} done`,
    ...(skipped > 0 ? [`${count(skipped)} skipped`] : []),
    ...(failed > 0 ? [paint(31, 39, `${count(failed)} failed`)] : []),
    ...(left > 0 ? [`${count(left)} left`] : []),
  ];
  const speed = done > 0 ? ` · ${figure(summary.inputsPerSecond)} inputs/s` : "";
  let text = paint(1, 22, `performer attend --batch ${plain(list)}`) +
    ` · ${count(inputs)} input${inputs === 1 ? "" : "s"}: ${parts.join(", ")}\n`;
  text += line("backend", `${backend.name} · ${backend.device}`);
  text += line("time", `${duration(summary.seconds)}${speed} · ${count(rows)} rows`);
  text += line("memory", `${bytesText(summary.peakBytes)} peak`);
  if (output !== null) text += line("output", plain(output));
  if (error) {
    const { median, p95, max, worst, checked, withoutSkill } = error;
    text += line(
      "error",
      `relative L2 median ${figure(median)}, 95 % up to ${figure(p95)}, largest ${figure(max)} (${plain(worst)})`,
    );
    if (withoutSkill > 0) {
      text += line(
        "",
        `${count(withoutSkill)} of ${count(checked)} inputs are approximated no better than by the mean of V`,
      );
    }
  }
  if (exceeded > 0) text += line("", `${count(exceeded)} above --max-error`);
  return text;
}
