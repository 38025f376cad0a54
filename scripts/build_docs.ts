/** Writes docs/commands and the list of commands in docs/README.md from the command table; `--check` only compares (exit 1). */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { commandPages, withCommandList } from "./command_pages.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "docs/commands");
mkdirSync(folder, { recursive: true });

const index = readFileSync(join(root, "docs/README.md"), "utf8");
const wanted = new Map([...commandPages(), ["docs/README.md", withCommandList(index)]]);
const present = readdirSync(folder).map((name) => `docs/commands/${name}`);
const found = new Map([...present, "docs/README.md"].map((path) => [path, readFileSync(join(root, path), "utf8")]));

const stale = [...wanted].filter(([path, text]) => found.get(path) !== text).map(([path]) => path);
const left = present.filter((path) => !wanted.has(path));
if (process.argv.includes("--check")) {
  for (const path of [...stale, ...left]) console.error(`${path} is not what the command table makes`);
  if (stale.length + left.length > 0) console.error("run bun scripts/build_docs.ts");
  process.exitCode = stale.length + left.length > 0 ? 1 : 0;
} else {
  for (const path of stale) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), wanted.get(path)!);
  }
  for (const path of left) rmSync(join(root, path));
  console.log(`${wanted.size} pages, ${stale.length} of them changed, ${left.length} removed`);
}
