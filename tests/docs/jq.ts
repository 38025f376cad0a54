/** As much of jq as the documentation needs, for machines without it: `jq [-r] .key.key` of one JSON value on stdin. */
import process from "node:process";

const path = process.argv.at(-1)!;
if (!/^(\.\w+)+$/.test(path)) throw new Error(`this jq knows paths only, not ${path}`);
let value: unknown = JSON.parse(await Bun.stdin.text());
for (const key of path.slice(1).split(".")) value = (value as Record<string, unknown>)[key];
if (value === undefined) throw new Error(`there is no ${path}`);
console.log(typeof value === "string" && process.argv.includes("-r") ? value : JSON.stringify(value, null, 2));
