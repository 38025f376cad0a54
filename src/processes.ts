/** Who a process is, told from others that had its number before or have it elsewhere, and whether it still runs. */
import { hostname } from "node:os";
import { linkNow, textNow } from "./disk_names.ts";
import { code } from "./system_errors.ts";

/** A process, told from others that had its number before or have it in another container. */
export interface ProcessMark {
  readonly pid: number;
  /** When it started, in the system's own count; "" where /proc does not tell. */
  readonly started: string;
  /** The machine since it was started, and the processes that see each other; "" where /proc does not tell. */
  readonly place: string;
  readonly host: string;
  /** What the machine is called through restarts (/etc/machine-id); "" where there is none. */
  readonly machine: string;
}

let own: ProcessMark | null = null;

/** The mark of this process. */
export function ownMark(): ProcessMark {
  return own ??= readMark();
}

function readMark(): ProcessMark {
  const [stat, boot, space] = [
    statOf("self"),
    textNow("/proc/sys/kernel/random/boot_id"),
    linkNow("/proc/self/ns/pid"),
  ];
  const shared = { host: hostname(), machine: textNow("/etc/machine-id")?.trim() ?? "" };
  if (!stat || boot === null || space === null) return { pid: process.pid, started: "", place: "", ...shared };
  return { pid: stat.pid, started: stat.started, place: `${boot.trim()} ${space}`, ...shared };
}

/** Whether two marks are of one process. */
export function isSame(a: ProcessMark, b: ProcessMark): boolean {
  return a.pid === b.pid && a.started === b.started && a.place === b.place && a.host === b.host;
}

/** Whether a process still runs; null where it cannot be known from here: on another machine, in another container. */
export function runs(mark: ProcessMark): boolean | null {
  const here = ownMark();
  if (mark.place !== here.place) return isBefore(mark, here) ? false : null;
  if (here.place === "") return mark.host === here.host ? answers(mark.pid) : null;
  const stat = statOf(String(mark.pid));
  return stat !== null && stat.started === mark.started && stat.state !== "Z" && stat.state !== "X";
}

/** Whether a mark is of this machine before it was last started: nothing of then runs any more. */
function isBefore(mark: ProcessMark, here: ProcessMark): boolean {
  const boot = ({ place }: ProcessMark) => place.split(" ")[0];
  return here.machine !== "" && mark.machine === here.machine && mark.host === here.host && mark.place !== "" &&
    here.place !== "" && boot(mark) !== boot(here);
}

/** Whether there is a process of that number, whichever. */
function answers(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return code(error) !== "ESRCH";
  }
}

function statOf(name: string): { pid: number; state: string; started: string } | null {
  const text = textNow(`/proc/${name}/stat`);
  if (text === null) return null;
  // Its second word is a name in brackets, which may hold anything.
  const rest = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { pid: Number.parseInt(text), state: rest[0], started: rest[19] };
}
