/** The tables of docs/json.md as schemas, and a check of real objects against them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./process.ts";

interface Field {
  readonly path: readonly string[];
  /** Alternatives: "string", "number", "null", "Warning[]" … */
  readonly types: readonly string[];
  readonly optional: boolean;
}

export interface Shape {
  readonly name: string;
  /** "performer-report/1", for the object of a command. */
  readonly schema: string | null;
  readonly fields: readonly Field[];
}

/** Every heading with a table whose first column is `key`. */
export function shapesOf(text: string): Map<string, Shape> {
  const shapes = new Map<string, Shape>();
  for (const section of text.split(/^#{2,3} /m).slice(1)) {
    const name = section.slice(0, section.indexOf("\n")).trim();
    const table = /^\| key \| type \| meaning \|\n\|[-|]+\|\n((?:\|.*\n?)+)/m.exec(section)?.[1];
    if (!table) continue;
    const fields = table.trimEnd().split("\n").map((line): Field => {
      const [key, type] = line.split("|").slice(1).map((cell) => cell.trim());
      return {
        path: key.replace("?", "").split(/\.|(?=\[\])/),
        types: type.split(" or "),
        optional: key.endsWith("?"),
      };
    });
    shapes.set(name, { name, schema: /^`(performer-\w+\/\d+)`/m.exec(section)?.[1] ?? null, fields });
  }
  return shapes;
}

export const SHAPES: ReadonlyMap<string, Shape> = shapesOf(readFileSync(join(ROOT, "docs/json.md"), "utf8"));

/** What of a value is not as its table says: one line per mistake, none where all is. */
export function mistakes(value: unknown, name: string, shapes = SHAPES, at = name): string[] {
  const shape = shapes.get(name);
  if (!shape) throw new RangeError(`docs/json.md has no table of ${name}`);
  const own = shape.schema && (value as { schema?: unknown })?.schema !== shape.schema
    ? [`${at}.schema is ${JSON.stringify((value as { schema?: unknown })?.schema)}, expected "${shape.schema}"`]
    : [];
  return [...own, ...shape.fields.flatMap((field) => alongPath(value, field, 0, shapes, at))];
}

function alongPath(value: unknown, field: Field, depth: number, shapes: typeof SHAPES, at: string): string[] {
  if (depth === field.path.length) return ofType(value, field.types, shapes, at);
  if (value === null && depth > 0) return []; // whether it may be is its own line's matter
  const [segment] = field.path.slice(depth);
  if (segment === "[]") {
    if (!Array.isArray(value)) return [`${at} is ${kindOf(value)}, expected a list`];
    return value.flatMap((one, i) => alongPath(one, field, depth + 1, shapes, `${at}[${i}]`));
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return [`${at} is ${kindOf(value)}, expected an object`];
  }
  if (!(segment in value)) return field.optional ? [] : [`${at}.${segment} is missing`];
  return alongPath((value as Record<string, unknown>)[segment], field, depth + 1, shapes, `${at}.${segment}`);
}

function ofType(value: unknown, types: readonly string[], shapes: typeof SHAPES, at: string): string[] {
  const found = types.map((type): string[] => {
    if (type === "any") return [];
    if (type.endsWith("[]")) {
      if (!Array.isArray(value)) return [`${at} is ${kindOf(value)}, expected ${types.join(" or ")}`];
      return value.flatMap((one, i) => ofType(one, [type.slice(0, -2)], shapes, `${at}[${i}]`));
    }
    if (shapes.has(type)) {
      if (kindOf(value) === "object") return mistakes(value, type, shapes, at);
      return [`${at} is ${kindOf(value)}, expected ${types.join(" or ")}`];
    }
    if (!["string", "number", "boolean", "object", "null"].includes(type)) {
      throw new RangeError(`docs/json.md: no such type as ${type}`);
    }
    return kindOf(value) === type ? [] : [`${at} is ${kindOf(value)}, expected ${types.join(" or ")}`];
  });
  return found.find((wrong) => wrong.length === 0) ?? found[0];
}

const kindOf = (value: unknown) => value === null ? "null" : Array.isArray(value) ? "list" : typeof value;
