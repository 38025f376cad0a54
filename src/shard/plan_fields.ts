/** Fields that plans of all kinds have. */
import { isAbsolute } from "node:path";
import { plain } from "../words.ts";
import { Fields } from "../fields.ts";
import { MAX_SHARDS, type PlannedFile } from "./plan.ts";

/** Letters of a name. */
export const MAX_TEXT = 4096;
const MAX_FILES = 5;

export const isSize = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

/** The files of a plan; names cannot leave its folder. */
export function filesOf(fields: Fields): PlannedFile[] {
  return fields.list<unknown>("files", 1, MAX_FILES, () => true, "files").map((value, i) => fileOf(value, i));
}

function fileOf(value: unknown, i: number): PlannedFile {
  const fields = new Fields(value, `files[${i}]`);
  const path = fields.text("path", MAX_TEXT);
  if (path === "" || path === "-" || plain(path) !== path) fields.fail("path", "the name of a file");
  const parts = path.split(/[/\\]/);
  if (parts.includes("..") || (!isAbsolute(path) && parts.includes(""))) {
    fields.fail("path", "a name below the folder of the plan, or an absolute one without ..");
  }
  const file = { path, bytes: fields.whole("bytes", 0), probe: fields.hash("probe") };
  fields.done();
  return file;
}

/** The rows that shards begin at, and where the last one ends. */
export function boundsOf(fields: Fields, key: string, rows: number): number[] {
  const list = fields.list<number>(key, 2, MAX_SHARDS + 1, isSize, "rows that shards begin at");
  const rising = list.every((row, i) => i === 0 ? row === 0 : row > list[i - 1]);
  if (!rising || list.at(-1) !== rows) fields.fail(key, `rising rows from 0 to ${rows}`);
  return list;
}
