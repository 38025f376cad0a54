/** What a run would do, for people. */
import { EXACT, NONE } from "../feature_map.ts";
import type { Forecast } from "../forecast.ts";
import { bytesText, count, duration, figure } from "../words.ts";

/** The plan in words, ending with a newline. */
export function forecastText(plan: Forecast, color: boolean): string {
  const { backend, input, attention, passes, bytes, flops, output, error } = plan;
  const [dim, plain] = color ? ["\x1b[2m", "\x1b[22m"] : ["", ""];
  const line = (name: string, words: string) => `  ${dim}${name.padEnd(12)}${plain} ${words}`;
  const heads = `${input.heads} head${input.heads === 1 ? "" : "s"}`;
  const lines = [
    `performer attend ${input.path} · ${count(input.rows)} rows × ${heads} × ${input.headDim} · ` +
    `${attention.causal ? "causal" : "bidirectional"} · dry run, nothing is written`,
    line("backend", `${backend.name} · ${backend.device}`),
    ...backend.refused.map(({ name, reason }) => line("", `${name} refused: ${reason}`)),
    line("features", featureWords(attention)),
    ...passes.map((pass, i) => line(i === 0 ? "reads" : "", passWords(pass))),
    ...(bytes.spooled > 0 ? [line("spools", `${bytesText(bytes.spooled)} of standard input to disk`)] : []),
    line(
      "writes",
      output
        ? `${output.path} · ${output.dtype} [${output.shape.join(", ")}] · ${bytesText(bytes.written)}`
        : "no output",
    ),
    line("tiles", `${count(attention.tileRows)} rows`),
    line("arithmetic", arithmetic(flops)),
    line("time", timeWords(plan)),
    line("memory", memoryWords(plan)),
    line("error", error ? errorWords(error, plan) : noError(plan)),
    ...plan.notes.map((note) => line("note", note)),
  ];
  return lines.join("\n") + "\n";
}

function featureWords({ features, numFeatures, projection, nearFar, compat }: Forecast["attention"]): string {
  if (nearFar) {
    const { window, heavy, far, clusters, top } = nearFar;
    return `window ${window}, heavy ${heavy}, far field ${far}` +
      (clusters > 0 ? `, ${clusters} clusters, top ${top}` : "");
  }
  if (features === EXACT) return "exact softmax";
  if (features === NONE) return "none: every row sees itself alone, the output is V";
  return [
    `${features}, m = ${numFeatures}`,
    ...(projection ? [projection] : []),
    ...(compat === "exact" ? [] : [`numerics of ${compat}`]),
  ].join(", ");
}

const passWords = ({ what, rows, times, bytes }: Forecast["passes"][number]) =>
  `${what}: ${count(rows)} rows${times === 1 ? "" : `, ${figure(times)} times`} · ${bytesText(bytes)}`;

const arithmetic = ({ attention, check }: Forecast["flops"]) =>
  `${figure(attention / 1e9)} GFLOP${check > 0 ? `, error check ${figure(check / 1e9)} GFLOP` : ""}`;

function timeWords({ seconds: { read, compute, check, total }, basis }: Forecast): string {
  const parts = [
    ...(compute === null ? [] : [`compute ${duration(compute)}`]),
    ...(read === null ? [] : [`read ${duration(read)}`]),
    ...(check ? [`error check ${duration(check)}`] : []),
  ].join(", ");
  const from = {
    trial: `a prediction from ${count(basis.rows ?? 0)} rows of the input, tried in ${duration(basis.seconds)}`,
    kept: `a prediction from the ${
      figure(basis.gflopsPerSecond ?? 0)
    } GFLOP/s that this backend was measured at before, on other rows`,
    measured: `a prediction from the ${
      figure(basis.gflopsPerSecond ?? 0)
    } GFLOP/s that this backend did just now, on other rows`,
    none: "not predicted",
  }[basis.kind];
  if (total === null) return from;
  return `about ${duration(total)} without writing: ${parts} · ${from}`;
}

function memoryWords({ memoryBytes, maxBytes, plannedBytes }: Forecast): string {
  const trial = memoryBytes === null ? "" : `at least ${bytesText(memoryBytes)}, the peak of the trial`;
  if (maxBytes === null || plannedBytes === null) return trial || "not predicted";
  return `${trial ? `${trial} · ` : ""}planned to stay below ${bytesText(plannedBytes)} of ${bytesText(maxBytes)}`;
}

function errorWords(
  { relativeL2: { value, low, high }, rowsChecked, ...error }: NonNullable<Forecast["error"]>,
  plan: Forecast,
) {
  const interval = low === high ? "" : ` [${figure(low)}, ${figure(high)}]`;
  const rows = plan.basis.rows === plan.input.rows
    ? "all rows"
    : `${count(plan.basis.rows ?? 0)} rows as if they were all`;
  return `relative L2 ${figure(value)}${interval} on ${count(rowsChecked)} of ${rows} · ` +
    `uniform baseline ${figure(error.uniformBaseline)} · skill ${error.skill.toFixed(3)} · mean ‖x+y‖² ${
      figure(error.phi)
    }`;
}

function noError({ attention: { features, nearFar }, basis }: Forecast): string {
  if (features === EXACT) return "none: this is exact softmax";
  if (features === NONE && !nearFar) return "not checked: this is no attention";
  return basis.kind === "trial"
    ? "not checked (--check 256 samples rows)"
    : "not predicted: --check measures it in a run";
}
