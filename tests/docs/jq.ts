/**
 * A stand-in for machines without jq. `jq [-r] .key.key` of one JSON value on stdin is answered; of other filters only the input is
 * read, and has to be JSON, one value or one on each line.
 */
import process from "node:process";

const filter = process.argv.at(-1)!;
const text = await Bun.stdin.text();
const path = /^(\.\w+)+$/.test(filter) ? filter.slice(1).split(".") : null;
if (path) {
  let value: unknown = JSON.parse(text);
  for (const key of path) value = (value as Record<string, unknown>)[key];
  if (value === undefined) throw new Error(`there is no ${filter}`);
  console.log(typeof value === "string" && process.argv.includes("-r") ? value : JSON.stringify(value, null, 2));
} else {
  const whole = text.trimStart().startsWith("{\n");
  for (const one of whole ? [text] : text.trim().split("\n")) console.log(JSON.stringify(JSON.parse(one)));
}
