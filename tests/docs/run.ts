/** Runs one command line of the documentation: inside this process where it is `performer` alone, else through bash. */
import { spawn } from "node:child_process";
import { inside } from "../cli/process.ts";
import { cheaper } from "./cheaper.ts";
import { wordsOf } from "./fences.ts";
import type { World } from "./world.ts";

export interface Ran {
  readonly code: number | null;
  /** Both streams. */
  readonly text: string;
}

/** Runs it in the world, whose folder is this process's working directory. */
export async function runShown(
  text: string,
  variables: ReadonlyMap<string, string>,
  world: World,
): Promise<Ran> {
  const words = wordsOf(text, variables);
  const args = words?.slice(words[0] === "npx" ? 1 : 0);
  if (args?.[0] !== "performer" || args.includes("-") || args[1] === "repl") return await shell(text, variables, world);
  const { code, stdout, stderr } = await inside(cheaper(args.slice(1)));
  return { code, text: stdout + stderr };
}

/** After this a command hangs, whatever it is. */
const HANG = 50_000;

function shell(text: string, variables: ReadonlyMap<string, string>, world: World): Promise<Ran> {
  // What is made for zsh and fish is not for bash to read; that it is made is seen all the same.
  const line = text.replace(/^source (?=<\(performer completions (zsh|fish)\))/, "cat ");
  const env = { PATH: world.path, HOME: world.home, NO_COLOR: "1", ...Object.fromEntries(variables) };
  const child = spawn("bash", ["-c", `set -o pipefail\n${line}`], {
    cwd: world.folder,
    env,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // a process group, so that what hangs ends with what it started
  });
  const hang = setTimeout(() => process.kill(-child.pid!, "SIGKILL"), HANG);
  let output = "";
  child.stdout.on("data", (chunk: Uint8Array) => output += new TextDecoder().decode(chunk));
  child.stderr.on("data", (chunk: Uint8Array) => output += new TextDecoder().decode(chunk));
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      clearTimeout(hang);
      resolve({ code, text: signal === "SIGKILL" ? `${output}\nkilled after ${HANG / 1000} s` : output });
    });
  });
}
