/** Expressions of a session, evaluated: numbers at once, tensors tile by tile into temporary files. */
import { UsageError } from "../errors.ts";
import type { RowRange } from "../tensor.ts";
import { nearest } from "../words.ts";
import type { Expression, Index, Sign } from "./expression.ts";
import { FUNCTIONS } from "./functions.ts";
import { columns, headOf, mapTensors, openTensor, peek, rowsIn, withRows } from "./tensors.ts";
import { kindWord, numberOf, plainValue, tensorOf, type TensorValue, type Value } from "./values.ts";
import type { Workspace } from "./workspace.ts";

/** What names stand for, and where tensors are made. */
export interface Scope {
  readonly variables: ReadonlyMap<string, Value>;
  readonly workspace: Workspace;
}

const SIGNS: Readonly<Record<Sign, (a: number, b: number) => number>> = {
  "+": (a, b) => a + b,
  "-": (a, b) => a - b,
  "*": (a, b) => a * b,
  "/": (a, b) => a / b,
  "^": (a, b) => a ** b,
};

/** The value of an expression. Throws UsageError for what cannot be. */
export async function evaluate(tree: Expression, scope: Scope): Promise<Value> {
  switch (tree.kind) {
    case "number":
    case "text":
      return plainValue(tree.value);
    case "name":
      return lookup(tree.name, scope);
    case "negate":
      return await combine("-", plainValue(0), await evaluate(tree.of, scope), scope);
    case "binary":
      return await combine(tree.sign, await evaluate(tree.left, scope), await evaluate(tree.right, scope), scope);
    case "index":
      return await indexed(await evaluate(tree.of, scope), tree.indices, scope);
    case "member":
      return await member(await evaluate(tree.of, scope), tree.name, scope);
    case "call":
      return await call(tree, scope);
  }
}

const CONSTANTS: Readonly<Record<string, number>> = { pi: Math.PI, e: Math.E, inf: Infinity };

function lookup(name: string, { variables }: Scope): Value {
  const value = variables.get(name) ?? (name in CONSTANTS ? plainValue(CONSTANTS[name]) : undefined);
  if (value) return value;
  if (name === "_") throw new UsageError("There is no last result yet");
  const near = nearest(name, [...[...variables.keys()].filter((known) => known !== "_"), ...Object.keys(FUNCTIONS)]);
  throw new UsageError(
    `Unknown name "${name}": ${near ? `did you mean ${near}? ` : ""}load a file as ${name} = load FILE, or see :vars`,
  );
}

async function combine(sign: Sign, left: Value, right: Value, { workspace }: Scope): Promise<Value> {
  const apply = SIGNS[sign];
  if (left.kind === "plain" && typeof left.value === "string" && sign === "+" && right.kind === "plain") {
    return plainValue(left.value + String(right.value));
  }
  if (left.kind === "tensor" || right.kind === "tensor") {
    const side = `a side of ${sign}`;
    if (left.kind === "tensor" && right.kind === "tensor") return await mapTensors(workspace, [left, right], apply);
    if (left.kind === "tensor") {
      const number = numberOf(right, side);
      return await mapTensors(workspace, [left], (x) => apply(x, number));
    }
    const number = numberOf(left, side);
    return await mapTensors(workspace, [tensorOf(right, side)], (x) => apply(number, x));
  }
  return plainValue(apply(numberOf(left, `a side of ${sign}`), numberOf(right, `a side of ${sign}`)));
}

async function call({ of, arguments: given }: Expression & { kind: "call" }, scope: Scope): Promise<Value> {
  if (of.kind === "name") {
    const found = FUNCTIONS[of.name];
    if (!found) {
      const near = nearest(of.name, Object.keys(FUNCTIONS));
      throw new UsageError(
        `Unknown function "${of.name}": ${near ? `did you mean ${near}? ` : ""}there are ${
          Object.keys(FUNCTIONS).join(", ")
        }; js EXPR runs JavaScript`,
      );
    }
    const values: Value[] = [];
    for (const argument of given) values.push(await evaluate(argument, scope));
    return await found.run(values, scope.workspace);
  }
  if (of.kind === "member" && of.name === "head") {
    const value = tensorOf(await evaluate(of.of, scope), "what head is taken of");
    if (given.length !== 1) throw new UsageError("Cannot take a head without its number: write x.head(3)");
    return await headOf(scope.workspace, value, numberOf(await evaluate(given[0], scope), "a head"));
  }
  throw new UsageError("Cannot call this: functions are called by name, such as stats(x), and heads are x.head(3)");
}

/** `x.shape`, `qkv.q`, `r.error.relativeL2.value`. */
async function member(value: Value, name: string, scope: Scope): Promise<Value> {
  if (value.kind === "inputs" || value.kind === "model") {
    if (value.members.some((candidate) => candidate.name === name)) return await named(value, name, scope);
    if (name === "path") return plainValue(value.path);
    return missing(name, [...value.members.map((candidate) => candidate.name), "path"], kindWord(value));
  }
  if (value.kind === "tensor") {
    const { info } = await peek(value, scope.workspace);
    const known: Record<string, unknown> = {
      shape: value.shape,
      rows: info.rows,
      heads: info.heads,
      width: info.width,
      dtype: value.dtype,
      path: value.path,
    };
    if (name === "report" && value.report) return { kind: "report", report: { ...value.report }, line: "" };
    if (name in known) return plainValue(known[name]);
    // What was found when it was made: y.error, y.seconds.
    if (value.report && Object.hasOwn(value.report, name)) {
      return plainValue((value.report as Record<string, unknown>)[name]);
    }
    return missing(name, [...Object.keys(known), "head(i)", ...(value.report ? ["report"] : [])], "tensor");
  }
  const inner = value.kind === "report" ? value.report : value.value;
  if (typeof inner === "object" && inner !== null && Object.hasOwn(inner, name)) {
    return plainValue((inner as Record<string, unknown>)[name]);
  }
  return missing(name, typeof inner === "object" && inner !== null ? Object.keys(inner) : [], kindWord(value));
}

function missing(name: string, known: readonly string[], kind: string): never {
  const near = nearest(name, known);
  const all = known.slice(0, 12).join(", ") + (known.length > 12 ? ", …" : "");
  throw new UsageError(
    `Unknown member "${name}" of a ${kind}: ${near ? `did you mean ${near}? ` : ""}${
      all ? `it has ${all}` : "it has none"
    }`,
  );
}

/** One tensor of a file of several. */
async function named(
  value: Value & { kind: "inputs" | "model" },
  name: string,
  { workspace }: Scope,
): Promise<TensorValue> {
  const { shape } = value.members.find((candidate) => candidate.name === name)!;
  const [flags, rows] = value.kind === "inputs" ? [value.flags, value.rows] : [{}, null];
  const whole = {
    kind: "tensor" as const,
    path: value.path,
    member: name,
    alone: false,
    flags,
    rows: null,
    dtype: "f32" as const,
    shape,
    report: null,
  };
  const { info, layout } = await peek(whole, workspace);
  const part = rows ? { rows, shape: withRows(shape, rows.end - rows.start, layout) } : {};
  return { ...whole, ...part, dtype: info.dtype };
}

async function indexed(value: Value, indices: readonly Index[], scope: Scope): Promise<Value> {
  if (value.kind === "inputs" || value.kind === "model") {
    const [index] = indices;
    if (index?.kind === "at") {
      const key = await evaluate(index.at, scope);
      if (key.kind === "plain" && typeof key.value === "string") {
        const names = value.members.map(({ name }) => name);
        return names.includes(key.value)
          ? await named(value, key.value, scope)
          : missing(key.value, names, kindWord(value));
      }
    }
    if (value.kind === "inputs" && indices.length === 1) return await rowsOfInputs(value, index, scope);
    throw new UsageError(`Cannot slice a ${kindWord(value)}: name one of its tensors first`);
  }
  if (value.kind === "tensor") return await indexedTensor(value, indices, scope);
  const inner = value.kind === "report" ? value.report : value.value;
  const [index] = indices;
  if (indices.length !== 1 || index.kind !== "at" || typeof inner !== "object" || inner === null) {
    throw new UsageError(`Cannot slice a ${kindWord(value)}: slices are for tensors`);
  }
  const key = await evaluate(index.at, scope);
  if (key.kind !== "plain") throw new UsageError("Cannot index with this: expected a number or a name");
  const at = Array.isArray(inner) && Number(key.value) < 0 ? inner.length + Number(key.value) : String(key.value);
  return Object.hasOwn(inner, at)
    ? plainValue((inner as Record<string, unknown>)[at])
    : missing(String(key.value), Object.keys(inner), kindWord(value));
}

async function rowsOfInputs(value: Value & { kind: "inputs" }, index: Index, scope: Scope): Promise<Value> {
  const { shape } = value.members.find(({ name }) => name === "k") ?? value.members[0];
  const total = value.rows ? value.rows.end - value.rows.start : rowsIn({ shape, flags: value.flags } as TensorValue);
  const range = await rangeOf(index, total, "rows", scope);
  const first = value.rows?.start ?? 0;
  return { ...value, rows: { start: first + range.start, end: first + range.end } };
}

/** `x[a:b]` are rows, `x[a:b, c:d]` columns as well; `x[i, j]` is a number. */
async function indexedTensor(value: TensorValue, indices: readonly Index[], scope: Scope): Promise<Value> {
  if (indices.length === 0 || indices.length > 2) {
    throw new UsageError(
      "Cannot slice with this: write x[a:b] for rows, x[a:b, c:d] for rows and columns; heads are x.head(3)",
    );
  }
  const { info, layout } = await peek(value, scope.workspace);
  const [rows, cols] = indices;
  const range = await rangeOf(rows, info.rows, "rows", scope);
  const first = value.rows?.start ?? 0;
  const start = first + range.start;
  const view: TensorValue = {
    ...value,
    rows: { start, end: first + range.end },
    shape: withRows(value.shape, range.end - range.start, layout),
    report: null,
  };
  const whole = value.rows === null && range.start === 0 && range.end === info.rows;
  const taken = whole ? { ...value, report: null } : view;
  if (!cols) return taken;
  const wanted = await rangeOf(cols, info.heads * info.width, "columns", scope);
  if (rows.kind === "at" && cols.kind === "at") {
    await using tensor = await openTensor(taken, scope.workspace.terminal);
    for await (const tile of tensor.source.tiles(1, { precision: "f64" })) return plainValue(tile.data[wanted.start]);
  }
  return await columns(scope.workspace, taken, wanted);
}

/** A half-open range as Python reads it, but ends beyond the last are errors. */
async function rangeOf(index: Index, total: number, what: string, scope: Scope): Promise<RowRange> {
  const side = async (tree: Expression | null, otherwise: number) => {
    if (!tree) return otherwise;
    const number = numberOf(await evaluate(tree, scope), "an index");
    if (!Number.isInteger(number)) throw new UsageError(`Cannot use ${number} as an index: expected a whole number`);
    return number < 0 ? total + number : number;
  };
  const start = index.kind === "at" ? await side(index.at, 0) : await side(index.from, 0);
  const end = index.kind === "at" ? start + 1 : await side(index.to, total);
  if (start < 0 || end > total || start > end) {
    throw new UsageError(`Cannot take ${what} ${start}:${end}: there are ${total}`);
  }
  return { start, end };
}
