/** `performer` for the pages that need a shell: the real command line, with what cheaper.ts adds. */
import process from "node:process";
import { cheaper } from "./cheaper.ts";

process.argv.splice(2, Infinity, ...cheaper(process.argv.slice(2)));
await import("../../cli.ts");
