/** Values in words: what a line shows when it is done, cut to the screen. */
import type { Terminal } from "../commands/command.ts";
import { DTYPE_BYTES } from "../tensor.ts";
import { bytesText, count, figure, plain } from "../words.ts";
import { openTensor, tileRowsOf } from "./tensors.ts";
import { kindWord, type TensorValue, type Value } from "./values.ts";

/** Rows of a tensor that are shown, and lines of anything else. */
const SHOWN_ROWS = 4;
const SHOWN_LINES = 40;

/** One line about a value. */
export function summaryOf(value: Value, owns: (path: string) => boolean = () => false): string {
  switch (value.kind) {
    case "tensor": {
      const { shape, dtype, rows, member, path, flags } = value;
      const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
      const said = Object.entries(flags).map(([name, text]) => ` --${name} ${text}`).join("");
      const place = owns(path) ? "" : ` · ${path}`;
      const part = `${member ? ` "${member}"` : ""}${rows ? ` rows ${rows.start}:${rows.end}` : ""}`;
      if (flags.encode !== undefined) return `tensor · ${count(shape[0])} residues${place}${part}${said}`;
      return `tensor [${shape.join(", ")}] ${dtype} · ${bytesText(bytes)}${place}${part}${said}`;
    }
    case "inputs": {
      const shapes = value.members.map(({ name, shape }) => `${name} [${shape.join(", ")}]`).join(", ");
      return `inputs ${shapes} · ${value.path}${value.rows ? ` rows ${value.rows.start}:${value.rows.end}` : ""}`;
    }
    case "model":
      return `model ${value.family ?? "of no known family"} · ${count(value.members.length)} tensors · ${value.path}`;
    case "report":
      return `report of ${value.line}`;
    case "plain": {
      const inner = value.value;
      if (typeof inner === "number" || typeof inner === "string" || inner === null || typeof inner !== "object") {
        return `${kindWord(value)} ${plainText(inner)}`;
      }
      return `${kindWord(value)} ${plain(jsonOf(inner, 0), 60)}`;
    }
  }
}

const plainText = (inner: unknown): string => typeof inner === "string" ? JSON.stringify(inner) : String(inner);

/** Text of an object; tall ones and typed arrays are cut. */
function jsonOf(value: unknown, indent: number): string {
  const seen = new WeakSet<object>();
  const text = JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner === "bigint") return String(inner);
    if (typeof inner === "function") return "(function)";
    if (typeof inner !== "object" || inner === null) return inner;
    if (seen.has(inner)) return "(seen above)";
    seen.add(inner);
    if (ArrayBuffer.isView(inner) && !(inner instanceof DataView)) {
      const numbers = inner as unknown as ArrayLike<number>;
      const shown = Array.from({ length: Math.min(8, numbers.length) }, (_, i) => Number(numbers[i]));
      return numbers.length > 8 ? [...shown, `… ${numbers.length} numbers`] : shown;
    }
    return inner;
  }, indent);
  return text ?? String(value);
}

/** What is shown of a value that a line is about; lines end with a newline. */
export async function showValue(
  value: Value,
  terminal: Terminal,
  owns: (path: string) => boolean,
): Promise<string> {
  if (value.kind === "tensor") return `${summaryOf(value, owns)}\n${await rowsText(value, terminal)}`;
  if (value.kind === "model" || value.kind === "inputs") return `${summaryOf(value)}\n${membersText(value)}`;
  if (value.kind === "plain" && (typeof value.value !== "object" || value.value === null)) {
    return value.value === undefined
      ? ""
      : `${typeof value.value === "string" ? plain(value.value) : plainText(value.value)}\n`;
  }
  const inner = value.kind === "report" ? value.report : value.value as object;
  if (isFlat(inner)) {
    const wide = Math.max(...Object.keys(inner).map((name) => name.length));
    return Object.entries(inner).map(([name, part]) => `  ${name.padEnd(wide)}  ${cellText(part)}\n`).join("");
  }
  const short = jsonOf(inner, 0);
  if (short.length < terminal.columns) return `${plain(short)}\n`;
  return cut(jsonOf(inner, 2).split("\n"), terminal.columns);
}

const isFlat = (value: object): boolean =>
  !Array.isArray(value) && !ArrayBuffer.isView(value) && Object.keys(value).length > 0 &&
  Object.values(value).every((part) => typeof part !== "object" || (Array.isArray(part) && part.length <= 4));

const cellText = (part: unknown): string =>
  typeof part === "number" ? figureOf(part) : Array.isArray(part) ? `[${part.join(", ")}]` : String(part);

const figureOf = (value: number): string => Number.isInteger(value) ? count(value) : figure(value);

function cut(lines: readonly string[], columns: number): string {
  const shown = lines.slice(0, SHOWN_LINES).map((line) => plain(line, Math.max(20, columns - 2)));
  const left = lines.length - shown.length;
  return `${shown.join("\n")}\n${
    left > 0 ? `… ${left} more lines; js JSON.stringify(_) prints all, .name goes inside\n` : ""
  }`;
}

function membersText({ members }: { members: readonly { name: string; shape: readonly number[] }[] }): string {
  const shown = members.slice(0, 12).map(({ name, shape }) => `  ${plain(name, 60)}  [${shape.join(", ")}]\n`).join("");
  return members.length > 12 ? `${shown}  … ${members.length - 12} more\n` : shown;
}

/** First numbers of the first rows. */
async function rowsText(value: TensorValue, terminal: Terminal): Promise<string> {
  await using tensor = await openTensor(value, terminal);
  const { rows, heads, width } = tensor.info;
  const cols = heads * width;
  const fit = Math.max(1, Math.min(cols, Math.floor((terminal.columns - 6) / 10)));
  let text = "";
  const wanted = Math.min(rows, SHOWN_ROWS);
  const options = { range: { start: 0, end: wanted }, precision: "f64" as const };
  for await (const tile of tensor.source.tiles(Math.min(wanted || 1, tileRowsOf(cols)), options)) {
    for (let i = 0; i < tile.rows; i++) {
      const row = Array.from(tile.data.subarray(i * cols, i * cols + fit), (x) => numberText(x).padStart(9));
      text += ` ${row.join(" ")}${cols > fit ? "  …" : ""}\n`;
    }
  }
  return rows > wanted ? `${text}  … ${count(rows - wanted)} more rows\n` : text;
}

function numberText(x: number): string {
  if (!Number.isFinite(x)) return String(x);
  const size = Math.abs(x);
  return x === 0 ? "0" : size >= 1e-4 && size < 1e5 ? x.toPrecision(5).slice(0, 9) : x.toExponential(2);
}
