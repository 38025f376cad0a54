/** `performer shard plan`: looks at the inputs once, fits what is fitted to data, and writes down all that tasks must agree on. */
import { dirname, resolve } from "node:path";
import { type Attention, decayFor } from "../attention.ts";
import { writeText } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { fitInputs, planFit } from "../fit.ts";
import type { Fit } from "../fitted.ts";
import { sizesOf } from "../run.ts";
import type { ModelPlan } from "../shard/model_plan.ts";
import {
  cutShards,
  idOfPlan,
  pathInPlan,
  type PlanContent,
  type PlannedFile,
  type PlannedInput,
  planText,
  probeFile,
  requireState,
  type ShardPlan,
} from "../shard/plan.ts";
import { emptyState } from "../state.ts";
import { fingerprintOf, projectionHash, storedState, withoutState } from "../stored_state.ts";
import { VERSION } from "../version.ts";
import { attentionFrom, openInputs, outputOf } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";
import type { Progress } from "./progress.ts";
import { reportOf, tensorOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

/** Makes a plan and writes it, to stdout where no file is named. */
export async function planShards(given: Invocation, terminal: Terminal, progress: Progress): Promise<Done> {
  const invocation = threeFiles(given);
  const { flags } = invocation;
  const started = performance.now();
  const { shards: wanted, output, folder, path } = wishOf(invocation);
  for (const flag of ["config", "part", "encodings"]) {
    if (flags[flag] !== undefined) throw new UsageError(`Cannot use --${flag} without --weights: it is of checkpoints`);
  }
  const attention = await attentionFrom(invocation);
  const why = withoutState(attention);
  if (why) throw new UsageError(`Cannot plan shards of --features ${attention.features}: ${why}`);
  const opened = await openInputs(invocation, terminal, { ahead: true });
  await using _files = opened.files;
  const { inputs } = opened;
  const sizes = sizesOf(inputs, attention.causal);
  decayFor(attention, sizes);
  const shards = cutShards(sizes, wanted);
  const fitting = planFit(attention);
  progress.update("fitting", 0, 1);
  const fit = fitting &&
    await fitInputs(attention, sizes, fitting, inputs, { precision: "f64", signal: terminal.signal });
  const { files, input } = await filesOf(invocation, folder);
  const { shape, dtype } = outputOf({ ...flags, output: "out.npy" }, opened, sizes)!;
  const { q, k, v, weights } = inputs;
  const content: PlanContent = {
    files,
    input,
    tensors: {
      q: tensorOf(q.info),
      k: tensorOf(k.info),
      v: tensorOf(v.info),
      mask: weights && tensorOf(weights.info),
    },
    sizes,
    ...settled(attention, sizes, fit, path),
    fit,
    output: { dtype, shape },
    shards,
  };
  const plan: ShardPlan = { ...content, version: VERSION, id: idOfPlan(VERSION, content), path, folder };
  return await writePlan(plan, planText(plan), output, started, terminal);
}

/** What every plan is asked for. Throws UsageError where it is not said. */
export function wishOf({ flags }: Invocation) {
  if (flags.shards === undefined) {
    throw new UsageError("Missing --shards: say how many shards, at least as many as machines");
  }
  const { output = "-" } = flags as { output?: string };
  if (output !== "-" && !output.endsWith(".json")) {
    throw new UsageError(`Cannot write plan "${output}": its name must end in .json`);
  }
  const path = output === "-" ? "stdout" : output;
  const folder = output === "-" ? resolve(".") : dirname(resolve(output));
  return { shards: Number(flags.shards), output, path, folder };
}

/** Writes a plan, and says so. @param started when work began, by `performance.now()` */
export async function writePlan(
  plan: ShardPlan | ModelPlan,
  text: string,
  output: string,
  started: number,
  terminal: Terminal,
): Promise<Done> {
  if (output === "-") terminal.out(text);
  else await writeText(output, text);
  const spent = (performance.now() - started) / 1000;
  return {
    toStdout: output === "-",
    report: {
      ...reportOf("plan", plan, terminal),
      output: { path: plan.path, bytes: text.length },
      seconds: { read: spent, compute: 0, write: 0, check: 0, total: spent },
    },
  };
}

/** `plan Q K V` is `plan --q Q --k K --v V`. */
function threeFiles(invocation: Invocation): Invocation {
  const { arguments: names, flags } = invocation;
  if (names.length < 2) return invocation;
  const flagged = ["q", "k", "v"].find((name) => flags[name] !== undefined);
  if (names.length !== 3 || flagged) {
    throw new UsageError(
      flagged
        ? `Cannot use ${names.length} files together with --${flagged}: give the ones or the others`
        : "Cannot plan with 2 files: expected one INPUT, or Q K V",
    );
  }
  const [q, k, v] = names;
  return { ...invocation, arguments: [], flags: { ...flags, q, k, v } };
}

/** What follows from the settings: hashes of W and of the features, and the settings as a plan has them. */
function settled(attention: Attention, sizes: PlanContent["sizes"], fit: Fit | null, path: string) {
  const { kvHeads, valueDim } = sizes;
  const { features, projection, norms, seed, causal, scale, decay = null } = attention;
  const none = emptyState(0, 0, 0);
  const stored = storedState(attention, sizes, fit, { path, rows: 0, state: none });
  const { numFeatures } = stored.settings;
  requireState(kvHeads, numFeatures, valueDim);
  return {
    attention: { features, numFeatures, projection, norms, seed, causal, scale, decay },
    projectionHash: projectionHash(stored),
    fingerprint: fingerprintOf(stored),
  };
}

/** Files of a plan, each once with its size and probe, and a function that says where a file stands among them. */
export function plannedFiles(folder: string) {
  const files: PlannedFile[] = [];
  const place = async (file: unknown): Promise<number | null> => {
    if (file === undefined) return null;
    if (file === "-") throw new UsageError("Cannot plan over standard input: every task reads the files, name them");
    const absolute = resolve(String(file));
    const path = pathInPlan(folder, absolute);
    const known = files.findIndex((other) => other.path === path);
    if (known >= 0) return known;
    return files.push({ path, ...await probeFile(absolute) }) - 1;
  };
  return { files, place };
}

/** The files of an attention, and which of them plays which role. */
async function filesOf(
  { arguments: [name], flags }: Invocation,
  folder: string,
): Promise<{ files: PlannedFile[]; input: PlannedInput }> {
  const { files, place } = plannedFiles(folder);
  const input: PlannedInput = {
    input: await place(name),
    q: await place(flags.q),
    k: await place(flags.k),
    v: await place(flags.v),
    mask: await place(flags.mask),
    projectionMatrix: await place(flags["projection-matrix"]),
    heads: (flags.heads as number | undefined) ?? null,
    kvHeads: (flags["kv-heads"] as number | undefined) ?? null,
    layout: flags.layout as "hld" | "lhd",
    dtype: (flags.dtype as "bf16" | undefined) ?? null,
    encode: (flags.encode as string | undefined) ?? null,
    rows: (flags.rows as PlannedInput["rows"] | undefined) ?? null,
  };
  return { files, input };
}
