/** `plot`: pictures of results, of tensors and of lists of numbers. */
import { plotReport, writeCharts, writePicture } from "../commands/picture.ts";
import type { Chart as DrawnChart } from "../charts/chart.ts";
import { UsageError } from "../errors.ts";
import { type Chart, drawChart } from "../plots/chart.ts";
import { drawRows } from "../plots/rows.ts";
import type { PlotStyle } from "../plots/style.ts";
import { count, figure } from "../words.ts";
import { openTensor, together } from "./tensors.ts";
import { kindWord, type TensorValue, type Value } from "./values.ts";
import type { Workspace } from "./workspace.ts";

/** Bars of the histogram of a tensor. */
const BARS = 15;

/** What `plot` is asked for. */
export interface PlotWish {
  readonly style: PlotStyle;
  /** Write a picture here instead. */
  readonly file: string | null;
  readonly workspace: Workspace;
}

/** The picture of a value, or a sentence about the file that was written; ends with a newline. Throws UsageError where there is none. */
export async function plotValue(value: Value, { style, file, workspace }: PlotWish): Promise<string> {
  const report = value.kind === "report" ? value.report : value.kind === "tensor" ? value.report : null;
  if (report) {
    if (file === null) return await plotReport(report as Record<string, unknown>, style);
    await writePicture(report as Record<string, unknown>, file);
    return `written to ${file}\n`;
  }
  if (value.kind === "tensor") {
    const bins = await binsOf(value, workspace);
    if (file === null) return drawBins(bins, value, style);
    await writeCharts([chartOf(bins, value)], file);
    return `written to ${file}\n`;
  }
  const points = value.kind === "plain" ? pointsOf(value.value) : null;
  if (!points) {
    throw new UsageError(
      `Cannot plot a ${kindWord(value)}: expected a report, a tensor, or a list of numbers or of [x, y]`,
    );
  }
  if (file !== null) {
    const axis = (title: string) => ({ title, scale: "linear" as const });
    const series = [{ name: "values", draw: "line and marks" as const, points: points.map(([x, y]) => ({ x, y })) }];
    await writeCharts([{
      title: "values",
      caption: [],
      panels: [{ kind: "lines", title: "values", x: axis("x"), y: axis("y"), series }],
    }], file);
    return `written to ${file}\n`;
  }
  const linear = (label: string) => ({ label, scale: "linear" as const });
  const series = [{ label: "", sign: points.length > 40 ? "" : "o", tone: "cyan" as const, points, joined: true }];
  const chart: Chart = { title: `${count(points.length)} values`, x: linear("x"), y: linear("y"), series };
  return drawChart(chart, style);
}

/** [1, 4, 9] or [[0, 1], [2, 3]] as points; null for anything else. */
function pointsOf(value: unknown): [number, number][] | null {
  if (typeof value !== "object" || value === null) return null;
  if (!Array.isArray(value) && !(ArrayBuffer.isView(value) && !(value instanceof DataView))) return null;
  const list = Array.from(value as unknown as ArrayLike<unknown>);
  if (list.length === 0) return null;
  if (list.every((item) => typeof item === "number")) return list.map((y, i) => [i, y as number]);
  const pairs = list.every((item) =>
    Array.isArray(item) && item.length === 2 && item.every((x) => typeof x === "number")
  );
  return pairs ? list as [number, number][] : null;
}

interface Bins {
  readonly low: number;
  readonly step: number;
  readonly counts: readonly number[];
  readonly odd: number;
}

/** How many numbers of a tensor lie where, between its least and its largest; two passes. */
async function binsOf(value: TensorValue, workspace: Workspace): Promise<Bins> {
  await using tensor = await openTensor(value, workspace.terminal);
  let [low, high, odd] = [Infinity, -Infinity, 0];
  for await (const [{ data, rows, cols }] of together([tensor], "f64", workspace.signal)) {
    for (let i = 0; i < rows * cols; i++) {
      if (!Number.isFinite(data[i])) odd++;
      else {
        if (data[i] < low) low = data[i];
        if (data[i] > high) high = data[i];
      }
    }
  }
  if (low > high) throw new UsageError("Cannot plot this tensor: it holds no finite number");
  const step = (high - low) / BARS || 1;
  const counts = new Array<number>(BARS).fill(0);
  for await (const [{ data, rows, cols }] of together([tensor], "f64", workspace.signal)) {
    for (let i = 0; i < rows * cols; i++) {
      if (Number.isFinite(data[i])) counts[Math.min(BARS - 1, Math.floor((data[i] - low) / step))]++;
    }
  }
  return { low, step, counts, odd };
}

const titleOf = ({ shape }: TensorValue) => `numbers of a tensor [${shape.join(", ")}]`;

function drawBins({ low, step, counts, odd }: Bins, value: TensorValue, style: PlotStyle): string {
  const labels = counts.map((_, i) => `${figure(low + i * step)} – ${figure(low + (i + 1) * step)}`);
  const wide = Math.max(...labels.map((label) => label.length));
  return drawRows({
    title: titleOf(value),
    axis: { label: "how many", scale: "linear" },
    rows: counts.map((n, i) => ({ label: labels[i].padStart(wide), value: n, text: count(n), tone: "cyan" })),
    bare: true,
    notes: odd > 0 ? [`${count(odd)} numbers are not finite`] : [],
  }, style);
}

function chartOf({ low, step, counts }: Bins, value: TensorValue): DrawnChart {
  const bars = counts.map((n, i) => ({ from: low + i * step, to: low + (i + 1) * step, count: n }));
  const panel = {
    kind: "bars" as const,
    title: titleOf(value),
    x: { title: "value", scale: "linear" as const },
    y: { title: "how many" },
    bars,
  };
  return { title: titleOf(value), caption: [], panels: [panel] };
}
