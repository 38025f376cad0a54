/** Linear attention on gpu.js: one head of one tile at a time, in float32; sums across tiles and chunks are the host's, in float64. */
import { QueryRow } from "../../kernels/scalar/queries.ts";
import { visibleKeys } from "../decay.ts";
import { stateBiases } from "../feature_map.ts";
import type { Plan } from "../plan.ts";
import { emptyState, type State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import { type Kernel, type Kernels, padDepth } from "./gpujs_kernels.ts";
import { quadsToRows } from "./gpujs_pack.ts";
import { FeatureLayout, KeyStage, type KeySums, QueryStage } from "./gpujs_stages.ts";
import type { OwnRows, TileKernels, TileOutput } from "./tiled.ts";

/** Causal rows that are answered together. 64: (64 + dv) · 64 extra multiply-adds per row and head, against r · dv of the state. */
const CHUNK = 64;

/** Denominators below this have lost their digits in float32. */
const UNDERFLOW = 1e-25;
/** What rounding an exponent to float32 may take from it: more than this is lost from numbers that had no digit left to tell by, above 10^7. */
const LOST = 1;
/** The smallest float32 above 0. */
const SMALLEST = 2 ** -149;

/** A causal stage: prefix states, and scores within a chunk. */
interface CausalStage {
  readonly keys: KeyStage;
  readonly queries: QueryStage;
  readonly scores: Kernel;
  readonly within: Kernel;
  /** E with features as rows, `chunks × features × rows`. */
  readonly right: Float32Array;
  /** [S z] ahead of each chunk, `chunks × features × stride`. */
  readonly prefix: Float32Array;
}

/** A state as the query pass reads it. */
interface Upload {
  readonly c: Float64Array;
  readonly right: Float32Array;
  empty: boolean;
}

export class GpuJsTileKernels implements TileKernels {
  readonly #layout: FeatureLayout;
  readonly #keyStages = new Map<number, KeyStage>();
  readonly #queryStages = new Map<number, QueryStage>();
  readonly #causalStages = new Map<number, CausalStage>();
  readonly #uploads: Upload[];
  readonly #biases: Float64Array;
  #uploaded = -1;

  constructor(readonly plan: Plan, readonly kernels: Kernels) {
    this.#layout = new FeatureLayout(plan.parameters, plan.valueDim);
    this.#biases = stateBiases(plan.parameters, plan.kvHeads);
    const { features, stride } = this.#layout;
    this.#uploads = Array.from({ length: plan.kvHeads }, () => ({
      c: new Float64Array(features).fill(-Infinity),
      right: new Float32Array(features * stride),
      empty: true,
    }));
    if (plan.causal) {
      this.#causalStage(plan.tileRows);
    } else {
      this.#keyStage(plan.tileRows);
      this.#queryStage(plan.tileRows);
    }
  }

  async keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    const { plan } = this;
    const state = emptyState(plan.kvHeads, plan.parameters.features, plan.valueDim);
    const stage = this.#keyStage(k.rows);
    for (let head = 0; head < plan.kvHeads; head++) {
      const sums = stage.run(k, v, weights, head, null);
      const own = new Float64Array(plan.parameters.features * (plan.valueDim + 1));
      this.#add(sums, 0, own);
      this.#store(state, head, sums.tops, own);
    }
    state.keys = visibleKeys(k.rows, weights);
    return state;
  }

  async queries(q: Tile, state: State, version: number): Promise<TileOutput> {
    const { plan } = this;
    const { valueDim, heads, kvHeads } = plan;
    const { stride } = this.#layout;
    this.#upload(state, version);
    const out = new Float32Array(q.rows * heads * valueDim);
    const denominators = new Float32Array(q.rows * heads);
    const stage = this.#queryStage(q.rows);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head * kvHeads / heads);
      const upload = this.#uploads[kvHead];
      if (upload.empty) continue;
      const { sums } = stage.run(q, head, kvHead % plan.parameters.matrices, upload.c, upload.right);
      divide(sums, null, q.rows, head, heads, valueDim, stride, out, denominators);
    }
    if (!plan.parameters.map.signed) this.#repair(q, state, out, denominators);
    return { out, denominators };
  }

  async causal(q: Tile, own: OwnRows, state: State): Promise<TileOutput & { readonly own: State }> {
    const { plan } = this;
    const { heads, kvHeads, valueDim, parameters } = plan;
    const { features, stride } = this.#layout;
    const stage = this.#causalStage(q.rows);
    const { rows, chunks } = stage.keys;
    const out = new Float32Array(q.rows * heads * valueDim);
    const denominators = new Float32Array(q.rows * heads);
    const ownState = emptyState(kvHeads, parameters.features, valueDim);
    for (let kvHead = 0, head = 0; kvHead < kvHeads; kvHead++) {
      const sums = stage.keys.run(own.k, own.v, own.weights, kvHead, this.#before(state, kvHead));
      const total = this.#scan(state, kvHead, sums, stage.prefix, chunks);
      this.#store(ownState, kvHead, sums.tops.subarray((chunks - 1) * features), total);
      quadsToRows(sums.E, chunks, rows, stage.right);
      for (let at = 0; at < stage.right.length; at += features * rows) {
        for (const f of this.#layout.pads) stage.right.fill(0, at + f * rows, at + (f + 1) * rows);
      }
      const c = this.#answering(sums.tops, kvHead);
      for (; head < heads && Math.floor(head * kvHeads / heads) === kvHead; head++) {
        const { P, sums: before } = stage.queries.run(q, head, kvHead % parameters.matrices, c, stage.prefix);
        const scores = stage.scores(P, stage.right);
        hideLater(scores, chunks, rows);
        const within = stage.within(scores, sums.values);
        divide(before, within, q.rows, head, heads, valueDim, stride, out, denominators);
      }
    }
    ownState.keys = visibleKeys(own.k.rows, own.weights);
    return { out, denominators, own: ownState };
  }

  /** c' of every chunk with the biases of keys and queries. */
  #answering(tops: Float64Array, kvHead: number): Float64Array {
    const { features: r } = this.plan.parameters;
    const c = tops.slice();
    for (let at = 0; at < c.length; at += this.#layout.features) {
      for (let a = 0; a < r; a++) c[at + this.#layout.place(a)] += 2 * this.#biases[kvHead * r + a];
    }
    return c;
  }

  #keyStage(rowsNeeded: number): KeyStage {
    const rows = bucket(rowsNeeded, padDepth(this.plan.tileRows), padDepth);
    return entry(this.#keyStages, rows, () => new KeyStage(this.#layout, this.kernels, 1, rows, this.plan.decay));
  }

  #queryStage(rowsNeeded: number): QueryStage {
    const rows = bucket(rowsNeeded, padDepth(this.plan.tileRows), padDepth);
    return entry(this.#queryStages, rows, () => new QueryStage(this.#layout, this.kernels, 1, rows));
  }

  #causalStage(rowsNeeded: number): CausalStage {
    const { kernels } = this;
    const layout = this.#layout;
    const rows = Math.min(CHUNK, padDepth(this.plan.tileRows));
    const chunks = bucket(Math.ceil(rowsNeeded / rows), Math.ceil(this.plan.tileRows / rows), Math.ceil);
    const shape = { chunks, quads: rows / 4 };
    return entry(this.#causalStages, chunks, () => ({
      keys: new KeyStage(layout, kernels, chunks, rows, this.plan.decay),
      queries: new QueryStage(layout, kernels, chunks, rows),
      scores: kernels.product({ ...shape, width: rows }, layout.features),
      within: kernels.product({ ...shape, width: layout.stride }, rows),
      right: new Float32Array(chunks * layout.features * rows),
      prefix: new Float32Array(chunks * layout.features * layout.stride),
    }));
  }

  /** c of the padded features of one head without biases, one common value for maps whose exponent is the row's alone. */
  #before(state: State, kvHead: number): Float64Array {
    const layout = this.#layout;
    const r = this.plan.parameters.features;
    const before = new Float64Array(layout.features).fill(-Infinity);
    for (let a = 0; a < r; a++) before[layout.place(a)] = state.c[kvHead * r + a] - this.#biases[kvHead * r + a];
    if (this.plan.parameters.map.family !== "exp") before.fill(before.reduce((x, y) => Math.max(x, y)));
    return before;
  }

  /** [S z] ahead of every chunk into `prefix`, relative to the chunk's c'; returns [S z] of all chunks relative to the last c'. */
  #scan(state: State, kvHead: number, keys: KeySums, prefix: Float32Array, chunks: number): Float64Array {
    const layout = this.#layout;
    const { valueDim } = this.plan;
    const r = this.plan.parameters.features;
    const width = valueDim + 1;
    const total = new Float64Array(r * width);
    for (let chunk = 0; chunk < chunks; chunk++) {
      for (let a = 0; a < r; a++) {
        const f = layout.place(a);
        const c = keys.tops[chunk * layout.features + f];
        const at = (chunk * layout.features + f) * layout.stride;
        if (c === -Infinity) {
          prefix.fill(0, at, at + width);
          continue;
        }
        const earlier = chunk > 0 ? Math.exp(keys.tops[(chunk - 1) * layout.features + f] - c) : 0;
        const held = Math.exp(Math.min(LOST, state.c[kvHead * r + a] - this.#biases[kvHead * r + a] - c));
        const s = (kvHead * r + a) * valueDim;
        const t = a * width;
        for (let col = 0; col < valueDim; col++) {
          total[t + col] *= earlier;
          prefix[at + col] = total[t + col] + held * state.S[s + col];
        }
        total[t + valueDim] *= earlier;
        prefix[at + valueDim] = total[t + valueDim] + held * state.z[kvHead * r + a];
      }
      this.#add(keys, chunk, total);
    }
    return total;
  }

  /** Adds one chunk's [S z] to `total`, `features × (valueDim + 1)`. */
  #add(keys: KeySums, chunk: number, total: Float64Array): void {
    const { features, stride } = this.#layout;
    const width = this.plan.valueDim + 1;
    for (let a = 0, t = 0; t < total.length; a++) {
      const f = this.#layout.place(a);
      let at = (chunk * features / 4 + (f >> 2)) * stride * 4 + (f & 3);
      for (const end = t + width; t < end; t++, at += 4) total[t] += keys.sums[at];
    }
  }

  /** Writes one head's [S z] (relative to `tops`) into a state; features that saw no key stay empty. */
  #store(state: State, head: number, tops: Float64Array, total: Float64Array): void {
    const { valueDim, features: r } = state;
    for (let a = 0; a < r; a++) {
      const c = tops[this.#layout.place(a)];
      if (c === -Infinity) continue;
      const f = head * r + a;
      const t = a * (valueDim + 1);
      state.c[f] = c + this.#biases[f];
      state.z[f] = total[t + valueDim];
      state.S.set(total.subarray(t, t + valueDim), f * valueDim);
    }
  }

  /** c + bias, the bias of queries, less the largest, and [S z] times what float32 cannot hold of it. */
  #upload(state: State, version: number): void {
    if (version === this.#uploaded) return;
    this.#uploaded = version;
    const { valueDim, features: r } = state;
    const { stride } = this.#layout;
    const raised = state.c.map((c, f) => c + this.#biases[f]);
    const exact = this.plan.parameters.map.family !== "exp"; // no exponent reaches the kernel
    for (let head = 0; head < state.heads; head++) {
      const upload = this.#uploads[head];
      const cs = raised.subarray(head * r, head * r + r);
      const top = cs.reduce((x, y) => Math.max(x, y), -Infinity);
      upload.empty = top === -Infinity;
      upload.right.fill(0);
      upload.c.fill(-Infinity);
      for (let a = 0; a < r; a++) {
        if (cs[a] === -Infinity) continue;
        const f = this.#layout.place(a);
        const c = cs[a] - top;
        upload.c[f] = exact ? 0 : Math.fround(c);
        const rest = Math.exp(Math.max(-LOST, Math.min(LOST, c - upload.c[f])));
        const from = (head * r + a) * valueDim;
        const to = f * stride;
        for (let col = 0; col < valueDim; col++) upload.right[to + col] = state.S[from + col] * rest;
        upload.right[to + valueDim] = state.z[head * r + a] * rest;
      }
    }
  }

  /** Rows of non-negative maps whose features all but vanish in float32 (elu of very negative rows) are answered in float64. */
  #repair(q: Tile, state: State, out: Float32Array, denominators: Float32Array): void {
    const counts = { emptyRows: 0, nonPositive: 0 };
    let row: QueryRow | undefined;
    for (let cell = 0; cell < denominators.length; cell++) {
      const head = cell % this.plan.heads;
      if (denominators[cell] >= UNDERFLOW || Number.isNaN(denominators[cell])) continue;
      if (this.#uploads[Math.floor(head * this.plan.kvHeads / this.plan.heads)].empty) continue;
      row ??= new QueryRow(this.plan.parameters, this.plan, state, counts);
      const denominator = row.emit(q, Math.floor(cell / this.plan.heads), head, out);
      // Never 0, which means "no key"; NaN where no feature is left at all.
      denominators[cell] = denominator > 0 ? Math.max(denominator, SMALLEST) : NaN;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.kernels[Symbol.dispose]();
  }
}

/**
 * The smallest of few sizes that holds `rows`: `most`, an eighth of it, an eighth of that … A short tile then costs little, and few
 * shapes are compiled (15 ms a kernel on Bun, 5 on Deno).
 */
export function bucket(rows: number, most: number, pad: (rows: number) => number): number {
  let size = most;
  for (;;) {
    const smaller = pad(Math.ceil(size / 8));
    if (smaller < rows || smaller >= size) return size;
    size = smaller;
  }
}

/** The value of a key, made at first use. */
export function entry<T>(map: Map<number, T>, key: number, make: () => T): T {
  let value = map.get(key);
  if (value === undefined) map.set(key, value = make());
  return value;
}

/** num/den of one head, from quads, into the tile; rows without a denominator become 0. `more` is added to `sums`. */
function divide(
  sums: Float32Array,
  more: Float32Array | null,
  rows: number,
  head: number,
  heads: number,
  valueDim: number,
  stride: number,
  out: Float32Array,
  denominators: Float32Array,
): void {
  for (let i = 0; i < rows; i++) {
    let at = (i >> 2) * stride * 4 + (i & 3);
    const last = at + valueDim * 4;
    const denominator = sums[last] + (more ? more[last] : 0);
    denominators[i * heads + head] = denominator;
    if (denominator === 0) continue;
    const to = (i * heads + head) * valueDim;
    for (let c = 0; c < valueDim; c++, at += 4) out[to + c] = (sums[at] + (more ? more[at] : 0)) / denominator;
  }
}

/** Zeroes the scores of keys after the query, `chunks × rows/4 × rows × 4`. */
function hideLater(scores: Float32Array, chunks: number, rows: number): void {
  const quads = rows / 4;
  for (let group = 0; group < chunks * quads; group++) {
    const first = (group % quads) * 4;
    const base = group * rows * 4;
    for (let j = first + 1; j < first + 4; j++) scores.fill(0, base + j * 4, base + j * 4 + (j - first));
    scores.fill(0, base + (first + 4) * 4, base + rows * 4);
  }
}
