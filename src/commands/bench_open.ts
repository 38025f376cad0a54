/** What `bench` measures: the backends and the rows of its flags. */
import { openFirst, parseBackendList } from "../backends/mod.ts";
import type { Backend } from "../backend.ts";
import type { BenchSizes } from "../bench.ts";
import type { OpenBackend } from "../bench_measure.ts";
import { type BenchTensors, syntheticTensors, tensorsFrom } from "../bench_tensors.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { Refusal } from "../report.ts";
import { sizesOf } from "../run.ts";
import { openInputs } from "./attend_files.ts";
import type { Invocation, Terminal } from "./command.ts";
import { speedsFile } from "./flags.ts";

type Flags = Invocation["flags"];

/**
 * Opens every backend of the list with every number of threads; those that cannot be opened are reported while there is another.
 * `nearFar`: \`auto\` takes a backend with kernels for near keys and far fields; `accept`: one that this does not throw UnsupportedError for. A backend that describes itself the same with other threads has none of its own and is measured once.
 */
export async function openBackends(
  flags: Flags,
  terminal: Terminal,
  stack: AsyncDisposableStack,
  nearFar = false,
  accept?: (backend: Backend) => void,
): Promise<{ backends: OpenBackend[]; refused: Refusal[] }> {
  const backends: OpenBackend[] = [];
  const refusals = new Map<string, string>();
  const wishes = String(flags.backend).split(",").map((part) => ({ part: part.trim(), list: parseBackendList(part) }));
  let last: unknown;
  for (const { part, list } of wishes) {
    for (const threads of (flags.threads as number[] | undefined) ?? [undefined]) {
      try {
        const profile = flags.profile === true;
        const { backend, refused } = await (terminal.openFirst ?? openFirst)(list, {
          ...{ threads, profile, speeds: speedsFile(terminal.env), eager: true },
          ...(part === "auto" ? { nearFar, accept } : {}),
        });
        for (const { name, reason } of refused) refusals.set(name, reason);
        const label = part === "auto" ? backend.name : part;
        const known = backends.some((other) => other.label === label && other.backend.device === backend.device);
        if (known) await backend[Symbol.asyncDispose]();
        else backends.push({ label, backend: stack.use(backend) });
      } catch (error) {
        if (!(error instanceof UnsupportedError)) throw error;
        refusals.set(part, error.reason);
        last = error;
      }
    }
  }
  if (backends.length === 0) throw last;
  return { backends, refused: [...refusals].map(([name, reason]) => ({ name, reason })) };
}

/** Rows to measure on, not yet drawn or read. */
export interface BenchRows {
  readonly sizes: BenchSizes;
  /** By growing L. */
  readonly lengths: readonly number[];
  load(): Promise<BenchTensors>;
}

/** The rows of FILE, or synthetic ones. Throws UsageError when FILE has fewer than were asked for. */
export async function rowsFor(invocation: Invocation, terminal: Terminal): Promise<BenchRows> {
  const { arguments: [path], flags, sources } = invocation;
  const lengths = (flags.lengths as number[]).toSorted((a, b) => a - b);
  const dims = ["head-dim", "value-dim"].filter((name) => flags[name] !== undefined);
  if (path === undefined) {
    if (flags.encode !== undefined) throw new UsageError("Cannot use --encode without FILE: name a FASTA or text file");
    const heads = Number(flags.heads ?? 8);
    const headDim = Number(flags["head-dim"] ?? 64);
    const sizes = { heads, kvHeads: heads, headDim, valueDim: Number(flags["value-dim"] ?? headDim) };
    const load = async () => syntheticTensors(sizes, lengths.at(-1)!, Number(flags.seed), Number(flags.spread));
    return { sizes, lengths, load };
  }
  if (dims.length > 0) throw new UsageError(`Cannot use --${dims[0]} with a file: "${path}" has its own widths`);
  const opened = await openInputs(invocation, terminal);
  await using _files = opened.files;
  const { queryRows: rows, keyRows, ...sizes } = sizesOf(opened.inputs, false);
  if (keyRows !== rows) {
    throw new UsageError(`Cannot measure on "${path}": it has ${rows} queries and ${keyRows} keys, expected as many`);
  }
  if (rows === 0) throw new UsageError(`Cannot measure on "${path}": it has no rows`);
  const wanted = sources.lengths === "default" ? [...lengths.filter((L) => L < rows), rows] : lengths;
  const longest = wanted.at(-1)!;
  if (longest > rows) throw new UsageError(`Cannot use --lengths ${longest}: "${path}" has ${rows} rows`);
  const tensors = await tensorsFrom(opened.inputs, sizes, longest);
  return { sizes, lengths: wanted, load: async () => tensors };
}
