#!/usr/bin/env node
// Starts performer on Bun or Deno. npm runs this with Node, which cannot run performer itself; it is plain JavaScript for that reason.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const { platform, arch } = process;
const suffix = platform === "win32" ? ".exe" : "";
// The sources where they are (the repository), else what was built from them (the package).
const program = ["../cli.ts", "../dist/cli.js"].map((name) => join(here, name)).find(existsSync);

// Bun: nothing of the folder that performer is used in is run or read unasked. Deno: everything is granted, because files such as
// /dev/fd/63 need it, and a program that may load native code is not held by less.
const ARGUMENTS = {
  bun: ["--no-install", "--no-env-file", `--config=${join(here, "bunfig.toml")}`],
  deno: ["run", "--allow-all", "--quiet"],
};
if (process.versions.bun || process.versions.deno) await import(pathToFileURL(program).href);
else start(choose());

/** Name and path of the runtime: PERFORMER_RUNTIME, else Bun, else Deno. */
function choose() {
  const wish = process.env.PERFORMER_RUNTIME;
  if (wish && /[\\/]/.test(wish)) {
    if (isProgram(wish)) return { name: /deno[^\\/]*$/i.test(wish) ? "deno" : "bun", path: wish };
    refuse(4, `Cannot run PERFORMER_RUNTIME=${wish}: there is no such program`);
  }
  if (wish && !Object.hasOwn(ARGUMENTS, wish)) {
    refuse(2, `Cannot use PERFORMER_RUNTIME=${wish}: expected bun, deno or a path`);
  }
  for (const name of wish ? [wish] : Object.keys(ARGUMENTS)) {
    const path = find(name);
    if (path) return { name, path };
  }
  const name = wish ?? "bun";
  const words = `performer runs on ${wish ?? "Bun or Deno"}, which was not found in its node_modules or on PATH;
  run npm install ${name} (npm install -g ${name} for a global performer), or see https://bun.sh or https://deno.com`;
  refuse(4, `Cannot start: ${words}`);
}

/** Path of a runtime: in node_modules of this package or above, beside the command that was typed, on PATH. */
function find(name) {
  for (let folder = here; folder !== dirname(folder); folder = dirname(folder)) {
    const path = inPackages(name, join(folder, "node_modules"));
    if (path) return path;
  }
  const folders = [dirname(process.argv[1]), ...(process.env.PATH ?? "").split(delimiter)];
  return folders.filter(isAbsolute).map((folder) => join(folder, name + suffix)).find(isProgram);
}

/** The program itself in an npm package, so that its install script need not have run, nor a second Node. */
function inPackages(name, modules) {
  const system = suffix && name === "bun" ? "windows" : platform;
  const paths = name === "bun"
    ? ["bun/bin/bun.exe", `@oven/bun-${system}-${arch.replace("arm64", "aarch64")}/bin/bun${suffix}`]
    : [`deno/deno${suffix}`, `@deno/${system}-${arch}${system === "linux" ? "-glibc" : ""}/deno${suffix}`];
  return paths.map((path) => join(modules, path)).find(isProgram);
}

/** A file that may be run. One of a few bytes in node_modules only stands in for it until an install script has run. */
function isProgram(path) {
  if (!existsSync(path)) return false;
  const found = statSync(path);
  return found.isFile() && (found.mode & 0o111 || suffix) && (found.size > 1e6 || !path.includes("node_modules"));
}

function refuse(code, words) {
  console.error(`performer: ${words}`);
  process.exit(code);
}

/** Becomes the runtime where the system can (Node 22.15 on, not on Windows); else runs it and passes on signals and how it ended. */
function start({ name, path }) {
  const args = [...ARGUMENTS[name], program, ...process.argv.slice(2)];
  if (process.execve && !suffix) process.execve(path, [path, ...args], process.env);
  // Before the child exists, so that no signal falls between.
  for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  for (const signal of ["SIGINT", "SIGQUIT"]) process.on(signal, () => terminalTellsAll() || child.kill(signal));
  const child = spawn(path, args, { stdio: "inherit" });
  child.on("error", (error) => refuse(4, `Cannot run ${path}: ${error.message}`));
  child.on("exit", (code, signal) => {
    if (!signal) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** Whether keys such as Ctrl-C reach the child as well: a terminal sends them to its whole foreground group. */
function terminalTellsAll() {
  try {
    const [, , group, , , foreground] = readFileSync("/proc/self/stat", "latin1").replace(/.*\) /s, "").split(" ");
    return group === foreground;
  } catch {
    return process.stdin.isTTY || process.stderr.isTTY;
  }
}
