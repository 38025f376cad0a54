/** Errors per head of several settings on the reader's own tensors: which heads a map serves, and which it does not. */
import type { OpenBackend } from "../bench_measure.ts";
import type { Chart, HeatPanel } from "../charts/chart.ts";
import type { Entrant } from "../compare.ts";
import { errorsOn } from "../compare_errors.ts";
import type { Sizes } from "../attention.ts";
import { UsageError } from "../errors.ts";
import type { Inputs } from "../inputs.ts";
import { settingName } from "../setting_words.ts";
import { count, figure } from "../words.ts";
import type { Figure } from "./figure.ts";

export interface HeadsOptions {
  readonly open: OpenBackend;
  readonly inputs: Inputs;
  readonly sizes: Sizes;
  /** Settings, without repetitions. */
  readonly entrants: readonly Entrant[];
  /** Query rows compared with exact softmax. */
  readonly check: number;
  readonly draws: number;
  readonly seed: number;
  readonly causal: boolean;
  readonly progress?: (stage: string, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

/** Heads up to which each has a row with its values; more are shown as a square per setting. */
const LISTED = 32;
/** Heads in a row of such a square. */
const ACROSS = 32;

interface Cell {
  readonly head: number;
  readonly setting: string;
  /** Root mean square over draws; NaN where the exact output is 0 in all sampled rows. */
  readonly relativeL2: number;
  readonly uniformBaseline: number;
  readonly skill: number;
}

/** Measures every setting on the same sampled rows. */
export async function headsFigure(options: HeadsOptions): Promise<Figure> {
  const { open, inputs, sizes, entrants, check, draws, seed, causal, signal } = options;
  const refused: string[] = [];
  const found = await errorsOn(
    open,
    { inputs, sizes, entrants, check, draws, progress: options.progress, signal },
    ({ features }, error) => refused.push(`${features}: ${error.reason}`),
  );
  const cells = found.erring.flatMap(({ entrant, errors }) => {
    const setting = settingName(entrant.attention);
    return errors[0].perHead.map(({ uniformBaseline }, head): Cell => {
      const squares = errors.map(({ perHead }) => perHead[head].relativeL2 ** 2);
      const relativeL2 = Math.sqrt(squares.reduce((sum, square) => sum + square, 0) / squares.length);
      return {
        head,
        setting,
        relativeL2,
        uniformBaseline,
        skill: relativeL2 === 0 ? 1 : 1 - (relativeL2 / uniformBaseline) ** 2,
      };
    });
  });
  if (cells.length === 0) {
    throw new UsageError(`Cannot draw errors per head: no setting runs on ${open.label} (${refused.join("; ")})`);
  }
  const settings = [...new Set(cells.map(({ setting }) => setting))];
  const chart = chartOf(cells, settings, options, found);
  return {
    name: "heads",
    title: chart.title,
    settings: {
      path: inputs.q.info.path,
      rows: sizes.queryRows,
      heads: sizes.heads,
      headDim: sizes.headDim,
      rowsChecked: found.rowsChecked,
      draws,
      seed,
      causal,
      phi: found.phi,
      uniformBaseline: found.uniformBaseline,
    },
    findings: [...findingsOf(cells, settings), ...refused.map((words) => `Left out: ${words}`)],
    data: { heads: cells.map((cell) => ({ ...cell })) },
    chart,
  };
}

function chartOf(
  cells: readonly Cell[],
  settings: readonly string[],
  { inputs, sizes, draws }: HeadsOptions,
  { rowsChecked }: { readonly rowsChecked: number },
): Chart {
  const colour: HeatPanel["colour"] = {
    title: "relative L2 error (1: as large as the output)",
    scale: "log",
    kind: "sequential",
    ...domainOfErrors(cells),
  };
  const of = (setting: string) => cells.filter((cell) => cell.setting === setting);
  const distinct = (which: (error: number) => boolean) =>
    new Set(cells.filter(({ relativeL2 }) => which(relativeL2)).map(({ head }) => head)).size;
  const zeros = distinct((error) => error === 0);
  const undefineds = distinct(Number.isNaN);
  const listed = sizes.heads <= LISTED;
  const grid: HeatPanel = {
    kind: "heat",
    title: "",
    columns: { title: "setting", values: [...settings.map(shortName), "mean of V"] },
    rows: { title: "head", values: Array.from({ length: sizes.heads }, (_, head) => String(head)) },
    cells: Array.from(
      { length: sizes.heads },
      (_, head) => [...settings.map((setting) => of(setting)[head].relativeL2), of(settings[0])[head].uniformBaseline],
    ).flat(),
    colour,
    labelled: true,
  };
  const rows = Math.ceil(sizes.heads / ACROSS);
  const squares = settings.map((setting): HeatPanel => ({
    kind: "heat",
    title: setting,
    columns: { title: "head, within its row", values: Array.from({ length: ACROSS }, (_, i) => i) },
    rows: { title: "first head of the row", values: Array.from({ length: rows }, (_, i) => i * ACROSS) },
    cells: Array.from({ length: rows * ACROSS }, (_, head) => of(setting)[head]?.relativeL2 ?? NaN),
    colour,
  }));
  return {
    title: `Error of every head, ${count(sizes.heads)} head${sizes.heads === 1 ? "" : "s"} of ${inputs.q.info.path}`,
    caption: [
      `Relative L2 distance from exact softmax attention on ${count(rowsChecked)} of ${count(sizes.queryRows)} rows${
        draws > 1 ? `, root mean square of ${draws} draws of the projection` : ", one draw of the projection"
      }`,
      ...(listed ? ['"mean of V" ignores attention: a setting above it is useless for that head'] : []),
      ...(zeros > 0
        ? [`No error at all, drawn in the lightest colour: ${count(zeros)} ${zeros === 1 ? "head" : "heads"}`]
        : []),
      ...(undefineds > 0
        ? [
          `Grey: ${count(undefineds)} ${
            undefineds === 1 ? "head" : "heads"
          } whose exact output is 0, so that no relative error is defined`,
        ]
        : []),
      ...findingsOf(cells, settings).slice(0, 3),
    ],
    panels: listed ? [grid] : squares,
    columns: listed ? 1 : Math.min(2, squares.length),
  };
}

/** "positive, m = 64, orthogonal" → "positive 64". */
const shortName = (setting: string) => setting.replace(/, m = (\d+)/, " $1").replace(", orthogonal", "");

/** From a thousandth of the largest error, or from the smallest, to the largest; 0 has no place on a logarithmic scale. */
function domainOfErrors(cells: readonly Cell[]): { domain?: readonly [number, number] } {
  const errors = cells.flatMap(({ relativeL2, uniformBaseline }) => [relativeL2, uniformBaseline])
    .filter((error) => error > 0 && Number.isFinite(error));
  const [low, high] = [Math.min(...errors), Math.max(...errors)];
  if (!(high > low)) return errors.length > 0 ? { domain: [low / 2, low * 2] } : { domain: [0.01, 1] };
  return { domain: [Math.max(low, high / 1e4), high] };
}

function findingsOf(cells: readonly Cell[], settings: readonly string[]): string[] {
  return settings.map((setting) => {
    const own = cells.filter((cell) => cell.setting === setting && Number.isFinite(cell.relativeL2));
    if (own.length === 0) return `${setting}: no head has a defined error`;
    const worst = own.reduce((most, cell) => cell.relativeL2 > most.relativeL2 ? cell : most);
    const useless = own.filter(({ skill }) => !(skill > 0)).length;
    const words = useless === 0
      ? "better than the mean of V in every head"
      : `no better than the mean of V in ${count(useless)} of ${count(own.length)} heads`;
    return `${setting}: ${words}; worst is head ${worst.head} at ${figure(worst.relativeL2)}`;
  });
}
