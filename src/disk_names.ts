/** Names on a disk: where they lead, what lies there, and small files that are there with all of their text or not at all. */
import * as fs from "node:fs";
import { dirname, resolve } from "node:path";
import { temporaries } from "./disk.ts";
import { UsageError } from "./errors.ts";
import { code, writeError } from "./system_errors.ts";

/** Links that are followed one after the other, as Linux does. */
const MOST_LINKS = 40;

/** Where a path leads, as an absolute path: through links, one to a file that is not there yet too. Throws UsageError for links in a circle. */
export function whereIs(path: string): string {
  let at = resolve(path);
  for (let links = 0; links <= MOST_LINKS; links++) {
    if (fs.existsSync(at)) return fs.realpathSync(at);
    const to = linkNow(at);
    if (to === null) return at;
    const folder = dirname(at);
    at = resolve(fs.existsSync(folder) ? fs.realpathSync(folder) : folder, to);
  }
  throw writeError({ code: "ELOOP" }, path);
}

/** Whether an output's name stands for standard output, whatever that is. */
export const isStandardOutput = (path: string): boolean => path === "-" || path === "/dev/stdout";

/** What an output would be written to: a file (`null`: there is none yet), a folder, or a pipe or device, which is written as it is. */
export type OutputKind = "file" | "folder" | "pipe" | "device" | null;

/** Throws UsageError for what cannot be written at all: sockets, disks, paths that lead nowhere. */
export function outputKind(path: string): OutputKind {
  let stat: fs.Stats | undefined;
  try {
    stat = fs.statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw writeError(error, path);
  }
  if (!stat) return null;
  if (stat.isFile()) return "file";
  if (stat.isDirectory()) return "folder";
  if (stat.isFIFO()) return "pipe";
  if (stat.isCharacterDevice()) return "device";
  throw new UsageError(
    `Cannot write "${path}": it is ${stat.isSocket() ? "a socket" : "a disk"}, expected a file, a pipe or a terminal`,
  );
}

/** The same for all names of one file, links and hard links; null for devices, which are nobody's own, and where there is nothing to be found. */
export function sameness(path: string): string | null {
  try {
    const stat = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    if (!stat) return whereIs(path);
    return stat.isCharacterDevice() ? null : `${stat.dev}:${stat.ino}`;
  } catch {
    return null; // whoever opens it says why
  }
}

/** The text of a small file; null where there is none that can be read. */
export function textNow(path: string): string | null {
  try {
    return fs.readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

/** Where a link leads to, as it says; null where there is none that can be read. */
export function linkNow(path: string): string | null {
  try {
    return fs.readlinkSync(path);
  } catch {
    return null;
  }
}

/** File systems without hard links say one of these. */
const NO_LINKS = ["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EINVAL"];

/**
 * Makes a small file of that name, which is there with all of its text or not at all; false where one is there already. It is registered for
 * removal. Where there are no hard links it may be seen empty. Throws what the system says.
 */
export function createNow(path: string, text: string): boolean {
  const whole = writtenBeside(path, text);
  try {
    fs.linkSync(whole, path);
  } catch (error) {
    if (code(error) === "EEXIST") return false;
    if (!NO_LINKS.includes(code(error) ?? "")) throw error;
    try {
      fs.writeFileSync(path, text, { flag: "wx" });
    } catch (error) {
      if (code(error) === "EEXIST") return false;
      throw error;
    }
  } finally {
    temporaries.remove(whole);
  }
  temporaries.add(path);
  return true;
}

/** Puts a small file in the place of another at once. It is registered for removal. Throws what the system says. */
export function replaceNow(path: string, text: string): void {
  const whole = writtenBeside(path, text);
  try {
    fs.renameSync(whole, path);
  } catch (error) {
    temporaries.remove(whole);
    throw error;
  }
  temporaries.keep(whole);
  temporaries.add(path);
}

/** A new file under a name nobody has; it is registered for removal. */
function writtenBeside(path: string, text: string): string {
  const beside = `${path}.${crypto.randomUUID().slice(0, 8)}`;
  temporaries.add(beside);
  try {
    fs.writeFileSync(beside, text, { flag: "wx" });
    return beside;
  } catch (error) {
    temporaries.remove(beside);
    throw error;
  }
}
