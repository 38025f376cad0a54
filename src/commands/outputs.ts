/**
 * What a command writes, looked at before it reads or writes anything: outputs that can be none, that are an input or one another, and
 * outputs that another run is at work on. The command table says which arguments and flags they are.
 */
import { dirname } from "node:path";
import { changeTime, isFolderAt } from "../bytes.ts";
import { type Claim, claimOutput, claimPath } from "../claim.ts";
import { isStandardOutput, outputKind, sameness } from "../disk_names.ts";
import { UsageError } from "../errors.ts";
import type { Argument, Command, Flag, Invocation } from "./command.ts";

/** A file of the command line. */
interface Named {
  /** As people know it: "INPUT", "--output". */
  readonly role: string;
  readonly path: string;
  readonly place: Flag | Argument;
}

/**
 * Refuses what cannot be written and claims the rest until the end of the command: disposing gives it back. Throws UsageError for an output
 * that is an input, another output, or neither a file nor a pipe, TransientError while another run is at work on it.
 */
export async function takeOutputs(command: Command, invocation: Invocation): Promise<DisposableStack> {
  const claims = new DisposableStack();
  const files = filesOf(command, invocation).filter(({ path }) => path !== "-");
  const outputs = files.filter(({ path, place }) => place.writes && !isStandardOutput(path));
  for (const output of outputs) refuse(output, files);
  if (command.claims === false || invocation.flags["dry-run"] === true) return claims;
  try {
    for (const { path, place } of outputs) claims.use(await claimed(path, place, invocation));
    return claims;
  } catch (error) {
    claims.dispose();
    throw error;
  }
}

/** Files that a command line names, by its places in the table. */
function filesOf({ arguments: places, flags }: Command, { arguments: given, flags: values }: Invocation): Named[] {
  const named: Named[] = given.map((path, i) => {
    const place = places[Math.min(i, places.length - 1)];
    return { role: place.name, path, place };
  });
  for (const place of flags) {
    const path = values[place.name];
    if (typeof path === "string") named.push({ role: `--${place.name}`, path, place });
  }
  return named.filter(({ place }) => place.files !== undefined);
}

function refuse(output: Named, files: readonly Named[]): void {
  const { path, place, role } = output;
  if (outputKind(path) === "folder" && place.writes === "file") {
    throw new UsageError(`Cannot write "${path}": it is a directory, name a file in it`);
  }
  const same = sameness(path);
  if (same === null) return;
  const replaced = "replaces" in place ? `--${place.replaces}` : null;
  const other = files.find((file) => file !== output && file.role !== replaced && sameness(file.path) === same);
  if (!other) return;
  const who = other.path === path ? other.role : `${other.role} "${other.path}"`;
  throw new UsageError(
    other.place.writes
      ? `Cannot write "${path}" for ${role}: ${who} is the same file and written too, name another`
      : `Cannot write "${path}": it is the file of ${who}, which is read; name another output`,
  );
}

/** null for what is written as it is, and for folders in a folder that is not there yet. */
async function claimed(path: string, place: Named["place"], { flags }: Invocation): Promise<Claim | null> {
  const kind = outputKind(path);
  if (kind === "pipe" || kind === "device") return null;
  if (place.writes === "folder" && !isFolderAt(dirname(claimPath(path)))) return null;
  if (place.name !== "output" || flags.resume !== true) return await claimOutput(path);
  // A run on another machine that kept a journal is over when it does not write it any more.
  const [{ partialNames }, { silence }] = await Promise.all([
    import("../partial_output.ts"),
    import("../run_journal.ts"),
  ]);
  const left = () => {
    const written = changeTime(partialNames(path).journal);
    return written !== null && Date.now() - written > silence(Number(flags["checkpoint-seconds"]));
  };
  return await claimOutput(path, { left });
}
