/** Linear attention on onnxruntime: blocks of a tile through the graphs of onnx_passes.ts, in float32. */
import { stateBiases } from "../feature_map.ts";
import type { Plan } from "../plan.ts";
import { clearState, copyState, emptyState, mergeInto, type State } from "../state.ts";
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
import { type OrtTensor, type Program, type Runtime, Turns } from "./onnx_runtime.ts";
import type { OwnRows, TileKernels, TileOutput } from "./tiled.ts";

/** Numbers of an intermediate `heads × rows × features`: what a block may hold, so that two stay in the last cache (8 MiB each). */
const BLOCK_NUMBERS = 1 << 21;
/** Causal rows that are answered together, and chunks of one run. */
const CHUNK = 128;
const CHUNKS = 8;

/** Rows of one run, and where the answers of its tile go. */
interface Answers {
  readonly from: number;
  readonly rows: number;
  readonly q: Float32Array;
  readonly out: Float32Array;
  readonly denominators: Float32Array;
}

export class OnnxTileKernels implements TileKernels {
  readonly #exp: boolean;
  readonly #blockRows: number;
  readonly #keyWeights: OrtTensor;
  /** Of the query pass, and of the causal pass. */
  #queryWeights: Float32Array | null = null;
  #causalWeights: OrtTensor | null = null;
  readonly #ones: Float32Array;
  readonly #biases: Float64Array;
  readonly #programs = new Map<string, Promise<Program>>();
  readonly #spare = new Spare();
  readonly #states: State[] = [];
  #upload: Upload | null = null;
  readonly #turns = new Turns();

  private constructor(readonly plan: Plan, readonly runtime: Runtime) {
    const { heads, kvHeads, headDim, tileRows, parameters: p } = plan;
    this.#exp = p.map.family === "exp";
    const rows = Math.floor(BLOCK_NUMBERS / (heads * p.features) / 16) * 16;
    this.#blockRows = Math.min(tileRows, Math.max(64, rows));
    const width = headDim + (this.#exp ? 1 : 0);
    this.#keyWeights = runtime.tensor(keyWeights(plan, width), [kvHeads, projectionRows(p), width]);
    this.#biases = stateBiases(p, kvHeads);
    this.#ones = new Float32Array(Math.max(CHUNKS * CHUNK, this.#blockRows) * heads).fill(1);
  }

  /** Kernels of a plan, with the graphs it needs compiled. */
  static async make(plan: Plan, runtime: Runtime): Promise<OnnxTileKernels> {
    const kernels = new OnnxTileKernels(plan, runtime);
    if (plan.causal) {
      await kernels.#causalProgram(Math.min(plan.tileRows, CHUNKS * CHUNK));
    } else {
      await Promise.all([kernels.#program("keys", keysGraph), kernels.#program("queries", queriesGraph)]);
    }
    return kernels;
  }

  keys(k: Tile, v: Tile, weights?: FloatArray): Promise<State> {
    const keys = copyKeys(this.#spare, k, v, weights, this.plan.kvHeads, this.plan.decay);
    return this.#turns.run(async () => {
      const state = this.#takeState();
      clearState(state);
      for (let from = 0; keys.visible > 0 && from < keys.rows; from += this.#blockRows) {
        const block = from === 0 ? state : this.#takeState();
        await this.#keys(keys, from, Math.min(this.#blockRows, keys.rows - from), block);
        if (block !== state) this.#join(state, block);
      }
      this.#spare.give(keys.k, keys.v, keys.logWeights);
      state.keys = keys.visible;
      return state;
    });
  }

  queries(tile: Tile, state: State, version: number, into?: Float32Array): Promise<TileOutput> {
    const { heads, valueDim } = this.plan;
    const out = into ?? new Float32Array(tile.rows * heads * valueDim);
    const denominators = new Float32Array(tile.rows * heads);
    if (this.#upload?.version !== version) {
      this.#queryWeights ??= queryWeights(this.plan, this.plan.headDim + (this.#exp ? 1 : 0));
      this.#upload = upload(this.plan, state, version, this.#queryWeights);
    }
    const held = this.#upload;
    if (held.empty.every(Boolean)) return Promise.resolve({ out: out.fill(0), denominators });
    const q = this.#spare.copy(tile.data);
    return this.#turns.run(async () => {
      for (let from = 0; from < tile.rows; from += this.#blockRows) {
        await this.#queries(held, { from, rows: Math.min(this.#blockRows, tile.rows - from), q, out, denominators });
      }
      this.#clear(out, denominators);
      this.#spare.give(q);
      return { out, denominators };
    });
  }

  causal(
    tile: Tile,
    own: OwnRows,
    before: State,
    _version: number,
    into?: Float32Array,
  ): Promise<TileOutput & { readonly own: State }> {
    const { heads, kvHeads, valueDim, decay } = this.plan;
    const most = CHUNKS * CHUNK;
    const keys = copyKeys(this.#spare, own.k, own.v, own.weights, kvHeads, decay);
    const q = tile.data instanceof Float32Array ? tile.data : Float32Array.from(tile.data);
    const ahead = uploadCausal(this.plan, before, this.#spare);
    const sofar = tile.rows > most ? copyState(before) : null; // ahead of every further run
    return this.#turns.run(async () => {
      const out = into ?? new Float32Array(tile.rows * heads * valueDim);
      const denominators = new Float32Array(tile.rows * heads);
      const state = this.#takeState();
      clearState(state);
      for (let from = 0; from < tile.rows; from += most) {
        const block = from === 0 ? state : this.#takeState();
        const answers = { from, rows: Math.min(most, tile.rows - from), q, out, denominators };
        await this.#causal(keys, from === 0 ? ahead : uploadCausal(this.plan, sofar!, this.#spare), answers, block);
        if (sofar) mergeInto(sofar, block);
        if (block !== state) this.#join(state, block);
      }
      this.#spare.give(keys.k, keys.v, keys.logWeights);
      state.keys = keys.visible;
      return { out, denominators, own: state };
    });
  }

  recycle(state: State): void {
    this.#states.push(state);
  }

  /** A state whose numbers are to be filled. */
  #takeState(): State {
    const { kvHeads, valueDim, parameters: { features } } = this.plan;
    return this.#states.pop() ?? emptyState(kvHeads, features, valueDim);
  }

  #join(state: State, block: State): void {
    mergeInto(state, block);
    this.recycle(block);
  }

  /** State of one block of keys, all but their number. */
  async #keys(keys: Keys, from: number, rows: number, state: State): Promise<void> {
    const { kvHeads, valueDim, parameters: { features } } = this.plan;
    const program = await this.#program("keys", keysGraph);
    const feeds = this.#keyFeeds(keys, from, rows);
    if (this.#exp) {
      const shape = [kvHeads, features, 1];
      const [c, share, S] = [this.#result(shape), this.#result(shape), this.#result([kvHeads, features, valueDim])];
      await program.run(feeds, { c, share, S });
      fillState(state, this.#biases, c.data, S.data, share.data);
      this.#spare.give(c.data, share.data, S.data);
    } else {
      const [c, S] = [this.#result([1, kvHeads, 1]), this.#result([kvHeads, features, valueDim + 1])];
      await program.run({ ...feeds, ones: this.#onesOf(rows, kvHeads) }, { c, S });
      fillState(state, this.#biases, c.data, S.data);
      this.#spare.give(c.data, S.data);
    }
  }

  /** Answers one block of queries. */
  async #queries(held: Upload, { from, rows, q, out, denominators }: Answers): Promise<void> {
    const { runtime } = this;
    const { heads, kvHeads, headDim, valueDim, parameters: p } = this.plan;
    const program = await this.#program("queries", queriesGraph);
    const m = projectionRows(p);
    const feeds = {
      q: this.#rowsOf(q, from, rows, heads, headDim),
      queryWeights: runtime.tensor(held.weights, [heads, held.weights.length / heads / m, m]),
      S: runtime.tensor(held.sums, [kvHeads, p.features, valueDim + 1]),
    };
    await program.run(this.#exp ? { ...feeds, ones: this.#onesOf(rows, heads) } : feeds, {
      out: this.#rowsOf(out, from, rows, heads, valueDim),
      denominators: this.#rowsOf(denominators, from, rows, heads, 1),
    });
  }

  /** Answers up to CHUNKS chunks; fills the state of their own keys, all but their number. `ahead` is used up. */
  async #causal(
    keys: Keys,
    ahead: { c: Float32Array; sums: Float32Array },
    { from, rows, q, out, denominators }: Answers,
    state: State,
  ): Promise<void> {
    const { plan, runtime } = this;
    const { heads, kvHeads, headDim, valueDim, parameters: p } = plan;
    const program = await this.#causalProgram(rows);
    const m = projectionRows(p);
    this.#causalWeights ??= runtime.tensor(queryWeights(plan, headDim), [heads, headDim, m]);
    const shapes = { c: [kvHeads, ahead.c.length / kvHeads, 1], sums: [kvHeads, p.features, valueDim + 1] };
    const [c, sums] = [this.#result(shapes.c), this.#result(shapes.sums)];
    await program.run({
      ...this.#keyFeeds(keys, from, rows),
      ones: this.#onesOf(rows, kvHeads),
      q: this.#rowsOf(q, from, rows, heads, headDim),
      queryWeights: this.#causalWeights,
      c0: runtime.tensor(ahead.c, shapes.c),
      S0: runtime.tensor(ahead.sums, shapes.sums),
    }, {
      c,
      own: sums,
      out: this.#rowsOf(out, from, rows, heads, valueDim),
      denominators: this.#rowsOf(denominators, from, rows, heads, 1),
    });
    fillState(state, this.#biases, c.data, sums.data);
    this.#spare.give(c.data, sums.data, ahead.c, ahead.sums);
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

  /** A tensor to be written. */
  #result(shape: readonly number[]): OrtTensor {
    return this.runtime.tensor(this.#spare.take(shape.reduce((x, y) => x * y)), shape);
  }

  /** Rows without a denominator are 0. */
  #clear(out: Float32Array, denominators: Float32Array): void {
    const { valueDim } = this.plan;
    for (let cell = 0; cell < denominators.length; cell++) {
      if (denominators[cell] === 0) out.fill(0, cell * valueDim, (cell + 1) * valueDim);
    }
  }

  /** The causal graph of as many chunks as `rows` rows need: one for whole tiles, one for the last. */
  #causalProgram(rows: number): Promise<Program> {
    const chunks = Math.ceil(rows / CHUNK);
    return this.#program(`causal ${chunks}`, (plan) => causalGraph(plan, chunks, CHUNK));
  }

  #program(key: string, graph: (plan: Plan) => Graph): Promise<Program> {
    let program = this.#programs.get(key);
    if (!program) this.#programs.set(key, program = this.runtime.compile(graph(this.plan)));
    return program;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#turns.done;
    for (const program of this.#programs.values()) await (await program)[Symbol.asyncDispose]();
    this.#programs.clear();
  }
}
