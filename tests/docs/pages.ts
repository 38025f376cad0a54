/** The pages whose commands and links are tested. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "../cli/process.ts";

const under = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" }).map((name) => join("docs", name));

/** Paths from the repository's root. */
export const PAGES: readonly string[] = [
  "README.md",
  ...under.filter((name) => name.endsWith(".md")).sort(),
  "examples/README.md",
  "bench/README.md",
  "bench/peers/README.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
];
