/** Features by themselves: for looking at what attention is built from. */
import { FeatureRow } from "../../kernels/scalar/features.ts";
import { parametersFor, type Sizes, transformFor } from "../attention.ts";
import { UsageError } from "../errors.ts";
import { EXACT, featureMap, type MapParameters } from "../feature_map.ts";
import { drawProjection as drawn, type RowNorms } from "../projection.ts";
import { transformedQueries } from "../transformed.ts";
import { attentionOf, type FeatureSettings } from "./settings.ts";
import { asTensor, type Rows, Tensor, tensor } from "./tensor.ts";

/** Settings of `phi`. */
export interface PhiSettings extends FeatureSettings {
  /** Splits the columns of rows that have no axis of heads. */
  readonly heads?: number;
  /** ln φ instead of φ, which lies beyond the range of numbers where ‖x‖² is large. Only for maps without a sign. */
  readonly log?: boolean;
  /** Hybrid features differ between queries and keys; "keys" by default. */
  readonly role?: "queries" | "keys";
}

/**
 * φ(x) of rows in float64, `[L, r]`, or `[heads, L, r]` where rows have several heads: the products φ(q)·φ(k) estimate exp(S q·k) for maps of
 * the softmax kernel. Rows are taken as they come (`phi` scales them by √S itself); maps that are fitted to data have the numbers of
 * `params: "fixed"`. Throws UsageError for exact attention and far fields, which have no features.
 */
export async function phi(x: Rows, settings: PhiSettings = {}): Promise<Tensor> {
  const name = settings.features ?? "hyperbolic";
  if (name === EXACT) throw new UsageError('Cannot take features of "softmax": exact attention has none');
  const map = featureMap(name);
  if (settings.log && map.signed) {
    throw new UsageError(`Cannot take the logarithm of "${name}": it has negative features`);
  }
  const rows = asTensor(x);
  const whole = settings.heads === undefined ? rows : await rows.view({ heads: settings.heads });
  const { heads, width, rows: length } = whole.info;
  const { log, role, ...features } = settings;
  const sizes: Sizes = {
    queryRows: length,
    keyRows: length,
    heads,
    kvHeads: heads,
    headDim: width,
    valueDim: width,
  };
  const attention = await attentionOf({ ...features, centre: "off" });
  const parameters = parametersFor(attention, sizes);
  const transform = transformFor(attention, sizes, null);
  const r = parameters.features;
  const out = new Float64Array(heads * length * r);
  const row = new Row(parameters, { queries: role === "queries", log: log ?? false });
  for await (const tile of whole.tiles(256, { precision: "f64" })) {
    const positions = Float64Array.from({ length: tile.rows }, (_, i) => tile.start + i);
    const seen = transformedQueries(tile, sizes, transform, positions);
    for (let h = 0; h < heads; h++) {
      for (let i = 0; i < tile.rows; i++) {
        const at = i * seen.cols + h * parameters.headDim;
        out.set(row.features(h, seen.data, at), (h * length + tile.start + i) * r);
      }
    }
  }
  return tensor(out, heads === 1 ? [length, r] : [heads, length, r]);
}

/** Features of one row after the other. */
class Row {
  readonly #row: FeatureRow;
  readonly #g: Float64Array;
  readonly #e: Float64Array;

  constructor(readonly p: MapParameters, readonly wish: { readonly queries: boolean; readonly log: boolean }) {
    this.#row = new FeatureRow(p);
    this.#g = new Float64Array(p.features);
    this.#e = new Float64Array(p.features);
  }

  features(head: number, data: ArrayLike<number>, at: number): Float64Array {
    const [g, e] = [this.#g, this.#e];
    // Only hybrid features differ between roles; other queries just leave out what cancels.
    const queries = this.wish.queries && this.p.map.family === "hybrid";
    if (queries) this.#row.query(head, data, at, g, e);
    else this.#row.key(head, data, at, g, e, 0);
    const common = queries ? this.#half(data, at) : 0;
    return g.map((value, a) => this.wish.log ? Math.log(value) + e[a] : value * Math.exp(e[a] + common));
  }

  /** ‖x‖²/2. */
  #half(data: ArrayLike<number>, at: number): number {
    let squares = 0;
    for (let l = 0; l < this.p.headDim; l++) squares += (this.p.inputScale * data[at + l]) ** 2;
    return squares / 2;
  }
}

/** What `drawProjection` draws. */
export interface DrawSettings {
  /** m, the rows of W. */
  readonly projections: number;
  /** d, its columns. */
  readonly headDim: number;
  /** By name (`PROJECTIONS`); "orthogonal" by default. */
  readonly kind?: string;
  /** Independent matrices, one per key head; 1 by default. */
  readonly matrices?: number;
  /** Lengths of the rows: "chi" (default) as those of a Gaussian vector, "sqrtd" all √d. */
  readonly norms?: RowNorms;
  /** 0 by default. */
  readonly seed?: number;
  /** Which redraw; 0 is the one that `attend` uses. */
  readonly draw?: number;
}

/** Draws W, `[m, d]` or with several matrices `[matrices, m, d]`: the same numbers on every runtime. `attend` takes it as `projection`. */
export function drawProjection(settings: DrawSettings): Tensor {
  const { projections, headDim, kind = "orthogonal", matrices = 1, norms = "chi", seed = 0, draw = 0 } = settings;
  const data = drawn({ kind, projections, headDim, matrices, norms, seed, draw });
  return tensor(data, matrices === 1 ? [projections, headDim] : [matrices, projections, headDim]);
}
