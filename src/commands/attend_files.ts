/** Files of `attend`: from flags to the inputs, the settings and the sink. */
import type { Attention, GivenProjection, Sizes } from "../attention.ts";
import { UsageError } from "../errors.ts";
import { EXACT, NONE } from "../feature_map.ts";
import type { FitWish, ParamsSource } from "../fitted.ts";
import type { Container } from "../formats/container.ts";
import { openResidues } from "../formats/fasta.ts";
import { KmerSource, parseKmer } from "../formats/kmer.ts";
import { openContainer, openStream } from "../formats/mod.ts";
import { openSink, outputFormat, type SinkOptions } from "../formats/sink.ts";
import { type GapPolicy, Gaps } from "../gaps.ts";
import { Inputs } from "../inputs.ts";
import type { RowNorms } from "../projection.ts";
import { rulesNamed } from "../rules_table.ts";
import type { StoredSettings } from "../stored_state.ts";
import type { RowRange, TensorSink, TensorSource } from "../tensor.ts";
import type { Invocation, Terminal } from "./command.ts";
import { resolveRows } from "./flags.ts";
import { nearFarFrom } from "./near_far_flags.ts";

type Flags = Invocation["flags"];
type Slice = { start: number | null; end: number | null };

export interface OpenedInputs {
  readonly inputs: Inputs;
  /** Axes of the query tensor's file, for the shape of the output. */
  readonly shape: readonly number[];
  /** Everything that is open. */
  readonly files: AsyncDisposableStack;
  /** Standard input is read in one pass, as it comes, in a real run. */
  readonly onePass: boolean;
  /** false: there are none, and keys stand for them. */
  readonly queries: boolean;
}

/** How inputs are opened. */
export interface OpenInputsOptions {
  /** Some rows are read before all of them are. */
  readonly ahead?: boolean;
  /** Columns are split in heads as this state has them, where no flag says otherwise. */
  readonly like?: Pick<StoredSettings, "kvHeads" | "headDim"> | null;
  /** Keys and values may come without queries: keys stand for them. */
  readonly keysAlone?: boolean;
}

/** Opens what INPUT, --q/--k/--v, --encode and --mask name. */
export async function openInputs(
  { arguments: [path], flags }: Invocation,
  terminal: Terminal,
  options: OpenInputsOptions = {},
): Promise<OpenedInputs> {
  const files = new AsyncDisposableStack();
  try {
    const { keysAlone = false } = options;
    const parts = [flags.q, flags.k, flags.v].filter((part) => part !== undefined).length;
    const whole = parts === 3 || (keysAlone && parts === 2 && flags.q === undefined);
    if (parts > 0 && (path !== undefined || !whole)) {
      throw new UsageError(
        path !== undefined
          ? `Cannot use "${path}" together with --q, --k and --v: give the one or the others`
          : keysAlone
          ? "Cannot run with only some of --k and --v: give both"
          : "Cannot run with only some of --q, --k and --v: give all three",
      );
    }
    if (parts === 0 && path === undefined) {
      throw new UsageError("Missing INPUT: give a file, or - for a .npy stream on stdin");
    }
    if (path === "-" && terminal.stdinTTY) {
      throw new UsageError("Cannot read a tensor from the terminal: pipe a .npy file in, or name one");
    }
    const opener = new Opener(flags, files, options);
    const [q, k, v] = flags.encode !== undefined
      ? await opener.encoded(path)
      : parts > 0
      ? await opener.separate(flags.q as string | undefined, String(flags.k), String(flags.v))
      : await opener.together(path);
    const weights = flags.mask === undefined ? null : await opener.mask(String(flags.mask), k);
    const { shape } = q.info;
    const policy = flags["on-nan"] ?? "error";
    const gaps = policy === "error" ? null : new Gaps(policy as GapPolicy);
    return {
      inputs: new Inputs(q, k, v, weights, gaps),
      shape,
      files,
      onePass: opener.onePass(shape),
      queries: opener.queries,
    };
  } catch (error) {
    await files.disposeAsync();
    throw error;
  }
}

type Triple = [TensorSource, TensorSource, TensorSource];

class Opener {
  readonly #containers = new Map<string, Container>();

  queries = true;

  constructor(readonly flags: Flags, readonly files: AsyncDisposableStack, readonly options: OpenInputsOptions) {}

  /** FASTA or text through the seeded encoder: queries, keys and values are the same rows. */
  async encoded(path: string | undefined): Promise<Triple> {
    if (path === undefined) {
      throw new UsageError("Cannot use --encode with --q, --k and --v: name one FASTA or text file");
    }
    const { flags } = this;
    const heads = Number(flags.heads ?? this.options.like?.kvHeads ?? 1);
    const options = { ...parseKmer(String(flags.encode)), heads, seed: Number(flags.seed) };
    const residues = this.files.use(await openResidues(path));
    const rows = flags.rows ? resolveRows(flags.rows as Slice, residues.length, `"${path}"`) : undefined;
    const source = await KmerSource.open(path, residues, options, rows);
    return [source, source, source];
  }

  async separate(q: string | undefined, k: string, v: string): Promise<Triple> {
    const heads = this.flags.heads as number | undefined;
    const kvHeads = this.#kvHeads(heads);
    const keys = await this.#open(k, undefined, kvHeads);
    this.queries = q !== undefined;
    return [
      !q || (q === k && heads === kvHeads) ? keys : await this.#open(q, undefined, heads, "queries"),
      keys,
      v === k ? keys : await this.#open(v, undefined, kvHeads),
    ];
  }

  #kvHeads(heads: number | undefined): number | undefined {
    return (this.flags["kv-heads"] as number | undefined) ?? (this.options.like ? undefined : heads);
  }

  /** One file: members q, k, v, or one tensor that plays all three roles. */
  async together(path: string): Promise<Triple> {
    const container = await this.#container(path);
    const heads = this.flags.heads as number | undefined;
    const kvHeads = this.#kvHeads(heads);
    const names = container.members.map((member) => member.name);
    this.queries = names.length === 1 || names.includes("q");
    if (["k", "v"].every((name) => names.includes(name)) && (this.queries || this.options.keysAlone)) {
      const k = await this.#open(path, "k", kvHeads);
      const q = this.queries ? await this.#open(path, "q", heads, "queries") : k;
      return [q, k, await this.#open(path, "v", kvHeads)];
    }
    if (names.length !== 1) {
      throw new UsageError(
        `Cannot choose tensors in "${path}": it holds ${names.slice(0, 8).join(", ")}${
          names.length > 8 ? ", …" : ""
        }, ` +
          `expected members ${this.options.keysAlone ? "k and v" : "q, k and v"}, or a single tensor`,
      );
    }
    if (this.flags["kv-heads"] !== undefined && kvHeads !== heads) {
      throw new UsageError(`Cannot use --kv-heads with one tensor: queries and keys are the same rows of "${path}"`);
    }
    const source = await this.#open(path, names[0], heads);
    return [source, source, source];
  }

  async mask(path: string, keys: TensorSource): Promise<TensorSource> {
    const container = await this.#container(path, false);
    const [member] = container.members;
    const source = await this.#slice(container, container.members.length === 1 ? member.name : "mask", {});
    if (source.info.heads * source.info.width !== 1 || source.info.rows !== keys.info.rows) {
      throw new UsageError(
        `Cannot use mask "${path}": shape is [${source.info.shape.join(", ")}], expected one number for each of ` +
          `${keys.info.rows} key rows`,
      );
    }
    return source;
  }

  async #open(
    path: string,
    name: string | undefined,
    given: number | undefined,
    role: "queries" | "keys" = "keys",
  ): Promise<TensorSource> {
    const layout = this.flags.layout as "hld" | "lhd";
    const container = await this.#container(path);
    return await this.#slice(container, name, { heads: given ?? this.#usualHeads(container, name, role), layout });
  }

  /** Heads in the columns of a tensor of two axes, by the state that it belongs to. */
  #usualHeads(container: Container, name: string | undefined, role: "queries" | "keys"): number | undefined {
    const { like } = this.options;
    if (!like) return undefined;
    const { shape } = container.member(name);
    if (shape.length > 2) return undefined;
    const heads = role === "queries" ? (shape[1] ?? 1) / like.headDim : like.kvHeads;
    return Number.isInteger(heads) && heads > 0 ? heads : undefined;
  }

  async #slice(
    container: Container,
    name: string | undefined,
    view: { heads?: number; layout?: "hld" | "lhd" },
  ): Promise<TensorSource> {
    const whole = await container.open(name, view);
    if (!this.flags.rows) return whole;
    const rows: RowRange = resolveRows(this.flags.rows as Slice, whole.info.rows, `"${container.path}"`);
    return await container.open(name, { ...view, rows });
  }

  /** Whether a run would need a tensor of this shape from a pipe only once. */
  onePass(shape: readonly number[]): boolean {
    return this.#readOnce() && this.#inOrder(shape);
  }

  /** Causal attention without a check reads its rows once, in order, unless it is fitted to some of them first. */
  #readOnce(): boolean {
    const { causal, check, features, rows, weights } = this.flags;
    if (features === NONE && rows === undefined) return true;
    if (causal !== true || check !== 0 || features === EXACT || rows !== undefined || weights !== undefined) {
      return false;
    }
    return !this.options.ahead;
  }

  readonly #inOrder = (shape: readonly number[]): boolean => {
    return shape.length <= 2 || (shape.length === 3 && this.flags.layout === "lhd");
  };

  async #container(path: string, typed = true): Promise<Container> {
    const open = this.#containers.get(path);
    if (open) return open;
    const dtype = typed ? this.flags.dtype as "bf16" | undefined : undefined;
    const dry = this.flags["dry-run"] === true; // then only the header is looked at
    const container = this.files.use(
      path === "-" && (dry || this.#readOnce())
        ? await openStream({ dtype }, dry ? () => true : this.#inOrder)
        : await openContainer(path, { dtype }),
    );
    this.#containers.set(path, container);
    return container;
  }
}

/** What the flags say about fitted numbers. */
export function fitWish({ params, centre }: Flags): FitWish {
  return { params: (params as ParamsSource | undefined) ?? null, centre: (centre ?? "auto") as FitWish["centre"] };
}

/** The attention settings of the flags; reads --projection-matrix. */
export async function attentionFrom(invocation: Pick<Invocation, "flags" | "sources">): Promise<Attention> {
  const { flags, sources } = invocation;
  const nearFar = nearFarFrom(invocation);
  const compat = rulesNamed(String(flags.compat ?? "exact"));
  const chosen = sources.features !== "default" || compat.name === "exact";
  if (flags.projection === "none" && compat.name === "exact") {
    throw new UsageError(
      "Cannot use --projection none without --compat: maps without projection are --features elu and its like",
    );
  }
  const ownFeatures = compat.kernels.includes("softmax") ? (compat.paired ? "hyperbolic" : "positive") : "relu";
  return {
    compat: compat.name,
    features: nearFar ? nearFar.far : chosen ? String(flags.features) : ownFeatures,
    nearFar,
    shrink: shrinkFrom(flags),
    numFeatures: Number(flags["num-features"]),
    projection: String(flags.projection),
    norms: flags.norms as RowNorms,
    seed: Number(flags.seed),
    causal: flags.causal === true,
    scale: (flags.scale as number | undefined) ?? null,
    decay: (flags.decay as Attention["decay"] | undefined) ?? null,
    fitting: fitWish(flags),
    given: flags["projection-matrix"] === undefined ? null : await readProjection(String(flags["projection-matrix"])),
  };
}

/** `--shrink`; refused where there is nothing to shrink. */
function shrinkFrom(flags: Flags): Attention["shrink"] {
  const shrink = (flags.shrink ?? null) as Attention["shrink"];
  if (shrink === null) return null;
  if (flags.features === EXACT) throw new UsageError("Cannot use --shrink with exact attention: it has no error");
  if (flags.weights !== undefined) {
    throw new UsageError("Cannot use --shrink with --weights: a checkpoint's layer is run as it is");
  }
  return shrink;
}

/** Reads a projection, `[m, d]` or `[heads, m, d]`. Throws UsageError for another shape. */
export async function readProjection(path: string): Promise<GivenProjection> {
  await using container = await openContainer(path, {});
  const { shape, data } = await container.readAll(undefined, "f64");
  if (shape.length < 2 || shape.length > 3 || shape.includes(0)) {
    throw new UsageError(
      `Cannot use projection matrix "${path}": shape is [${shape.join(", ")}], expected [m, d] or [heads, m, d]`,
    );
  }
  const given = data as Float64Array;
  if (given.some((value) => !Number.isFinite(value))) {
    throw new UsageError(`Cannot use projection matrix "${path}": it holds numbers that are not finite`);
  }
  return { path, matrices: shape.length === 3 ? shape[0] : 1, headDim: shape.at(-1)!, data: given };
}

/** What `--output` is to hold: the queries' axes with the values' width. */
export interface OutputShape extends Pick<SinkOptions, "heads" | "width" | "layout"> {
  readonly path: string;
  readonly dtype: "f32" | "f64" | "f16";
  readonly shape: readonly number[];
}

/** The output that the flags ask for; null without one. Throws UsageError for a suffix that nothing writes. */
export function outputOf(flags: Flags, { inputs, shape }: OpenedInputs, sizes: Sizes): OutputShape | null {
  if (flags.output === undefined) return null;
  const path = String(flags.output);
  const { queryRows: rows, heads, valueDim: width } = sizes;
  const lhd = flags.layout === "lhd";
  const given = inputs.q.info.dtype;
  const dtype = (flags["output-dtype"] as OutputShape["dtype"] | undefined) ??
    (given === "f64" || given === "f16" ? given : "f32");
  const outShape = shape.length <= 2
    ? [rows, heads * width]
    : shape.length === 3
    ? (lhd ? [rows, heads, width] : [heads, rows, width])
    : (lhd ? [shape[0], rows, shape[2], width] : [shape[0], shape[1], rows, width]);
  outputFormat(path); // refuses an unknown suffix before anything is computed
  return { path, dtype, shape: outShape, heads, width, layout: lhd ? "lhd" : "hld" };
}

/** The sink of `--output` with what reports say of it; `sink` where it is not the file's own. */
export async function openOutputFor(
  output: OutputShape,
  sink?: TensorSink,
): Promise<TensorSink & { path: string; dtype: string; shape: readonly number[] }> {
  const { path, dtype, shape } = output;
  return Object.assign(sink ?? await openSink(path, output), { path: path === "-" ? "stdout" : path, dtype, shape });
}
