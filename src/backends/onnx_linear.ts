/** Linear attention on onnxruntime: blocks of a tile through the graphs of onnx_passes.ts, in float32. */
import { QueryRow } from "../../kernels/scalar/queries.ts";
import type { Plan } from "../plan.ts";
import { clearState, emptyState, mergeInto, type State } from "../state.ts";
import type { FloatArray, Tile } from "../tensor.ts";
import {
  copyKeys,
  fillState,
  type Keys,
  keyWeights,
  queryWeights,
  Spare,
  type Upload,
  upload,
  uploadCausal,
} from "./onnx_arrays.ts";
import type { Graph } from "./onnx_graph.ts";
import { causalGraph, keysGraph, projectionRows, queriesGraph } from "./onnx_passes.ts";
import type { OrtTensor, Program, Runtime } from "./onnx_runtime.ts";
import type { OwnRows, TileKernels, TileOutput } from "./tiled.ts";

/** Numbers of an intermediate `heads × rows × features`: what a block may hold, so that two stay in the last cache (8 MiB each). */
const BLOCK_NUMBERS = 1 << 21;
/** Causal rows that are answered together, and chunks of one run. */
const CHUNK = 128;
const CHUNKS = 8;
/** Denominators below this have lost their digits in float32. */
const UNDERFLOW = 1e-25;

export class OnnxTileKernels implements TileKernels {
  readonly #exp: boolean;
  readonly #blockRows: number;
  readonly #keyWeights: OrtTensor;
  /** Of the query pass, and of the causal pass. */
  #queryWeights: Float32Array | null = null;
  #causalWeights: OrtTensor | null = null;
  readonly #ones: Float32Array;
  readonly #programs = new Map<string, Promise<Program>>();
  #upload: Upload | null = null;
  readonly #spare = new Spare();
  readonly #states: State[] = [];
  /** Settles when every run so far is done. */
  #done: Promise<unknown> = Promise.resolve();

  private constructor(readonly plan: Plan, readonly runtime: Runtime) {
    const { heads, kvHeads, headDim, tileRows, parameters: p } = plan;
    this.#exp = p.map.family === "exp";
    const rows = Math.floor(BLOCK_NUMBERS / (heads * p.features) / 16) * 16;
    this.#blockRows = Math.min(tileRows, Math.max(64, rows));
    const width = headDim + (this.#exp ? 1 : 0);
    this.#keyWeights = runtime.tensor(keyWeights(plan, width), [kvHeads, projectionRows(p), width]);
    this.#ones = new Float32Array(Math.max(CHUNKS * CHUNK, this.#blockRows) * heads).fill(1);
  }

  /** Kernels of a plan, with the graphs it needs compiled. */
  static async make(plan: Plan, runtime: Runtime): Promise<OnnxTileKernels> {
    const kernels = new OnnxTileKernels(plan, runtime);
    if (plan.causal) {
      await kernels.#causalProgram(Math.min(plan.tileRows, CHUNK * CHUNKS));
    } else {
      await kernels.#keysProgram();
      await kernels.#queriesProgram();
    }
    return kernels;
  }

  keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    const keys = copyKeys(this.#spare, k, v, weights, this.plan.kvHeads);
    return this.#inTurn(async () => {
      const state = this.#state(keys.visible);
      if (keys.visible === 0) clearState(state);
      for (let from = 0; keys.visible > 0 && from < keys.rows; from += this.#blockRows) {
        const block = from === 0 ? state : this.#state(0);
        await this.#keys(keys, from, Math.min(this.#blockRows, keys.rows - from), block);
        if (block === state) continue;
        mergeInto(state, block);
        this.recycle(block);
      }
      this.#spare.give(keys.k, keys.v, keys.logWeights);
      return state;
    });
  }

  recycle(state: State): void {
    this.#states.push(state);
  }

  /** A state to be filled. */
  #state(keys: number): State {
    const { kvHeads, valueDim, parameters: { features } } = this.plan;
    const state = this.#states.pop() ?? emptyState(kvHeads, features, valueDim);
    state.keys = keys;
    return state;
  }

  queries(q: Tile, state: State, version: number, into?: Float32Array): Promise<TileOutput> {
    const { heads, valueDim } = this.plan;
    const out = into ?? new Float32Array(q.rows * heads * valueDim);
    const denominators = new Float32Array(q.rows * heads);
    if (this.#upload?.version !== version) {
      this.#queryWeights ??= queryWeights(this.plan, this.plan.headDim + (this.#exp ? 1 : 0));
      this.#upload = upload(this.plan, state, version, this.#queryWeights);
    }
    const held = this.#upload;
    if (held.empty.every(Boolean)) return Promise.resolve({ out: out.fill(0), denominators });
    const data = this.#spare.copy(q.data);
    return this.#inTurn(async () => {
      for (let from = 0; from < q.rows; from += this.#blockRows) {
        await this.#queries(data, held, from, Math.min(this.#blockRows, q.rows - from), out, denominators);
      }
      if (held.state) this.#repair({ ...q, data }, held.state, held.empty, out, denominators);
      this.#clear(out, denominators);
      this.#spare.give(data);
      return { out, denominators };
    });
  }

  causal(
    q: Tile,
    own: OwnRows,
    state: State,
    _version: number,
    into?: Float32Array,
  ): Promise<TileOutput & { readonly own: State }> {
    const { plan } = this;
    const { heads, kvHeads, valueDim } = plan;
    const keys = copyKeys(this.#spare, own.k, own.v, own.weights, kvHeads);
    const data = q.data instanceof Float32Array ? q.data : Float32Array.from(q.data);
    const first = uploadCausal(plan, state, this.#spare);
    const more = q.rows > CHUNKS * CHUNK ? copyState(state) : null;
    return this.#inTurn(async () => {
      const out = into ?? new Float32Array(q.rows * heads * valueDim);
      const denominators = new Float32Array(q.rows * heads);
      const sum = this.#state(keys.visible);
      clearState(sum);
      for (let from = 0; from < q.rows; from += CHUNKS * CHUNK) {
        const rows = Math.min(CHUNKS * CHUNK, q.rows - from);
        const ahead = from === 0 ? first : uploadCausal(plan, more!, this.#spare);
        const part = this.#state(0);
        await this.#causal(data, keys, ahead, from, rows, out, denominators, part);
        if (more) mergeInto(more, part);
        mergeInto(sum, part);
        this.recycle(part);
      }
      sum.keys = keys.visible;
      this.#spare.give(keys.k, keys.v, keys.logWeights);
      return { out, denominators, own: sum };
    });
  }

  /** One block of keys → its state. */
  async #keys(keys: Keys, from: number, rows: number, state: State): Promise<void> {
    const { kvHeads, valueDim, parameters: { features } } = this.plan;
    const program = await this.#program("keys");
    const feeds = this.#keyFeeds(keys, from, rows);
    const make = (shape: readonly number[]) => {
      return this.runtime.tensor(this.#spare.take(shape.reduce((x, y) => x * y)), shape);
    };
    if (this.#exp) {
      const shape = [kvHeads, features, 1];
      const results = { c: make(shape), share: make(shape), S: make([kvHeads, features, valueDim]) };
      await program.run(feeds, results);
      fillState(state, results.c.data, results.S.data, results.share.data);
      this.#spare.give(results.c.data, results.S.data, results.share.data);
    } else {
      const results = { c: make([1, kvHeads, 1]), S: make([kvHeads, features, valueDim + 1]) };
      await program.run({ ...feeds, ones: this.#onesOf(rows, kvHeads) }, results);
      fillState(state, results.c.data, results.S.data);
      this.#spare.give(results.c.data, results.S.data);
    }
  }

  /** Answers one block of queries into `out` and `denominators`. */
  async #queries(
    data: Float32Array,
    held: Upload,
    from: number,
    rows: number,
    out: Float32Array,
    denominators: Float32Array,
  ): Promise<void> {
    const { runtime } = this;
    const { heads, kvHeads, headDim, valueDim, parameters: p } = this.plan;
    const program = await this.#program("queries");
    const m = projectionRows(p);
    const feeds = {
      q: this.#rowsOf(data, from, rows, heads, headDim),
      queryWeights: runtime.tensor(held.weights, [heads, held.weights.length / heads / m, m]),
      S: runtime.tensor(held.sums, [kvHeads, p.features, valueDim + 1]),
    };
    await program.run(this.#exp ? { ...feeds, ones: this.#onesOf(rows, heads) } : feeds, {
      out: this.#rowsOf(out, from, rows, heads, valueDim),
      denominators: this.#rowsOf(denominators, from, rows, heads, 1),
    });
  }

  #keyFeeds(keys: Keys, from: number, rows: number): Record<string, OrtTensor> {
    const { kvHeads, headDim, valueDim } = this.plan;
    return {
      k: this.#rowsOf(keys.k, from, rows, kvHeads, headDim),
      v: this.#rowsOf(keys.v, from, rows, kvHeads, valueDim),
      logWeights: this.#rowsOf(keys.logWeights, from, rows, kvHeads, 1),
      keyWeights: this.#keyWeights,
    };
  }

  #rowsOf(data: Float32Array, from: number, rows: number, heads: number, width: number): OrtTensor {
    const cols = heads * width;
    return this.runtime.tensor(data.subarray(from * cols, (from + rows) * cols), [rows, heads, width]);
  }

  #onesOf(rows: number, heads: number): OrtTensor {
    return this.#rowsOf(this.#ones, 0, rows, heads, 1);
  }

  /** Rows of non-negative maps whose features all but vanish in float32 (elu of very negative rows) are answered in float64. */
  #repair(q: Tile, state: State, empty: readonly boolean[], out: Float32Array, denominators: Float32Array): void {
    const { plan } = this;
    let row: QueryRow | undefined;
    for (let cell = 0; cell < denominators.length; cell++) {
      const head = cell % plan.heads;
      if (denominators[cell] >= UNDERFLOW || Number.isNaN(denominators[cell])) continue;
      if (empty[Math.floor(head * plan.kvHeads / plan.heads)]) continue;
      row ??= new QueryRow(plan.parameters, plan, state, { emptyRows: 0, nonPositive: 0 });
      row.emit(q, Math.floor(cell / plan.heads), head, out);
      denominators[cell] = 1;
    }
  }

  /** Rows without a denominator are 0. */
  #clear(out: Float32Array, denominators: Float32Array): void {
    const { valueDim } = this.plan;
    for (let cell = 0; cell < denominators.length; cell++) {
      if (denominators[cell] === 0) out.fill(0, cell * valueDim, (cell + 1) * valueDim);
    }
  }

  #program(pass: Pass): Promise<Program> {
    let program = this.#programs.get(pass);
    if (!program) this.#programs.set(pass, program = this.runtime.compile(GRAPHS[pass](this.plan)));
    return program;
  }

  /** Runs `work` after all that was asked for before: graphs of one session share their threads and buffers. */
  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#done.then(work);
    this.#done = turn.catch(() => {});
    return turn;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#done;
    for (const program of this.#programs.values()) await (await program)[Symbol.asyncDispose]();
    this.#programs.clear();
  }
}
