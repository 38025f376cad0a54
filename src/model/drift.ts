/**
 * Exact attention, no attention and approximations of it through one model, side by side: every pass keeps its own residual streams
 * (`rows × dim`), and after each layer they are compared. Attention stays tiled; only keys and values of one layer are kept.
 */
import { parametersFor } from "../attention.ts";
import type { Backend } from "../backend.ts";
import { bestOf, type DriftFindings, type LayerDrift, type Variant, type VariantError } from "../drift.ts";
import { EXACT, OWN } from "../feature_map.ts";
import { ErrorSums } from "../metrics.ts";
import { prepareRuled } from "../rules.ts";
import { prepareExactSoftmax } from "../rules_exact.ts";
import { prepareFeatures } from "../rules_mapped.ts";
import type { RuledPlan, RuledSession } from "../rules_plan.ts";
import { UniformSession } from "../rules_uniform.ts";
import type { FloatArray, RowRange, Tile } from "../tensor.ts";
import type { AttentionSettings } from "./attention_layer.ts";
import { AttentionMeasure, MeasuringSession } from "./drift_session.ts";
import { forwardSteps } from "./forward.ts";
import type { PassOptions, Step, Streams } from "./pass.ts";
import { Ledger } from "./ledger.ts";
import { isClassifier, openOutputs, outputCols } from "./output.ts";
import { Weights } from "./weights.ts";

/** Numbers of a tile of outputs: three such tiles are held at once. */
const OUTPUT_NUMBERS = 2 ** 24;

export interface DriftOptions extends Omit<PassOptions, "encodings" | "outputs" | "weights" | "watcher" | "numerics"> {
  readonly variants: readonly Variant[];
  /** Layers whose attention is replaced. */
  readonly layers: RowRange;
  readonly seed: number;
  /** Layers done of all passes. */
  readonly progress?: (done: number, total: number) => void;
}

type Prepare = AttentionSettings["prepare"];

/** Measures how the variants drift from exact attention. */
export async function measureDrift(options: DriftOptions): Promise<DriftFindings> {
  const { variants, layers, layout, backend } = options;
  const most = Math.max(64, Math.floor(OUTPUT_NUMBERS / outputCols(layout, false)));
  const tileRows = options.tileRows ?? Math.min(most, backend.limits.preferredTileRows);
  // Passes read the same layer one after the other.
  const weights = new Weights(options.container, backend.limits.precision, { keeps: true });
  const measures = new Map<number, AttentionMeasure>();
  const replaced = (layer: number) => layer >= layers.start && layer < layers.end;
  const within = (prepare: Prepare): Prepare => (backend, plan, layer) =>
    replaced(layer) ? prepare(backend, plan, layer) : prepareExactSoftmax(backend, plan);
  const open = variants.map((variant): Prepare => (backend, plan, layer) => {
    return openVariant(variant, { backend, plan, layer, seed: options.seed });
  });
  const exact: Prepare = async (backend, plan, layer) => {
    const measure = new AttentionMeasure(plan, variants.length);
    measures.set(layer, measure);
    const rivals: RuledSession[] = [];
    for (const prepare of open) rivals.push(await prepare(backend, plan, layer));
    const truth = await prepareExactSoftmax(backend, plan);
    return new MeasuringSession(measure, truth, uniform(backend, plan), rivals);
  };
  const passes = [exact, async (backend: Backend, plan: RuledPlan) => uniform(backend, plan), ...open]
    .map((prepare) => {
      return forwardSteps({ ...options, tileRows, weights, outputs: false, numerics: { prepare: within(prepare) } });
    });
  const found = new Comparison(options, weights, measures, replaced);
  try {
    while (await found.step(passes));
  } finally {
    for (const pass of passes) await pass.return();
  }
  return found.findings();
}

function uniform(backend: Backend, plan: RuledPlan): UniformSession {
  return new UniformSession(plan, backend.limits.precision);
}

/** A session of a variant; every layer draws its own projection. */
function openVariant(
  { features, numFeatures, projection }: Variant,
  { backend, plan, layer, seed }: { backend: Backend; plan: RuledPlan; layer: number; seed: number },
): Promise<RuledSession> {
  if (features === OWN) return prepareRuled(backend, plan);
  if (features === EXACT) return prepareExactSoftmax(backend, plan);
  const { heads, kvHeads = heads, headDim, valueDim, causal } = plan;
  const attention = {
    features,
    numFeatures: numFeatures!,
    projection: projection ?? "orthogonal",
    norms: "chi",
    seed,
    causal,
    scale: null,
    given: null,
    compat: "exact",
  } as const;
  const sizes = { queryRows: 0, keyRows: 0, heads, kvHeads, headDim, valueDim };
  return prepareFeatures(backend, plan, parametersFor(attention, sizes, layer));
}

/** Walks all passes in step and adds up how far they are apart. */
class Comparison {
  readonly #layers: LayerDrift[] = [];
  readonly #outputs: readonly ErrorSums[];
  readonly #tops: readonly TopAgreement[];
  readonly #logits: boolean;
  #done = 0;

  constructor(
    readonly options: DriftOptions,
    readonly weights: Weights,
    readonly measures: ReadonlyMap<number, AttentionMeasure>,
    readonly replaced: (layer: number) => boolean,
  ) {
    const { variants, layout } = options;
    this.#logits = layout.output.kind !== "none";
    this.#outputs = variants.map(() => new ErrorSums());
    this.#tops = [null, ...variants].map(() => new TopAgreement());
  }

  /** One step of every pass; false when they are through. */
  async step(passes: readonly AsyncGenerator<Step, void>[]): Promise<boolean> {
    const [exact, base, ...others] = passes;
    const [truth, baseline] = [await this.#next(exact), await this.#next(base)];
    if (truth.kind === "layer" && baseline.kind === "layer") {
      const sums = others.map(() => new ErrorSums());
      for (const [i, other] of others.entries()) {
        const step = await this.#next(other);
        if (step.kind === "layer") this.#addStreams(sums[i], step.streams, truth.streams, baseline.streams);
      }
      this.#layers.push(this.#layer(truth.layer, sums));
      this.weights.forget();
      return true;
    }
    const last: (readonly FloatArray[])[] = [];
    for (const step of [truth, baseline, ...await Promise.all(others.map((other) => this.#next(other)))]) {
      if (step.kind === "last") last.push(step.rows);
    }
    if (truth.kind === "last") await this.#addOutputs(last, truth.tileRows);
    return false;
  }

  async #next(pass: AsyncGenerator<Step, void>): Promise<Step> {
    const { value, done } = await pass.next();
    if (done) throw new Error("a pass ended before its last rows");
    const { variants, layout, progress } = this.options;
    if (value.kind === "layer") progress?.(++this.#done, (variants.length + 2) * layout.layers.length);
    return value;
  }

  /** Through one output layer, all streams side by side; `last` holds the exact one, the baseline, then the variants. */
  async #addOutputs(last: readonly (readonly FloatArray[])[], tileRows: number): Promise<void> {
    const { backend, layout, sequences } = this.options;
    const settings = { tileRows, encodings: false, ledger: new Ledger() };
    await using outputs = await openOutputs(backend, this.weights, layout, settings);
    this.weights.forget();
    for (const [item, { length }] of sequences.entries()) {
      const [exact, base, ...others] = last.map((rows) => outputs.of(rows[item], length));
      for await (const truth of exact) {
        const kept = this.#keptOutputs(item, truth);
        const baseline = (await base.next()).value!;
        this.#tops[0].add(baseline, truth, kept);
        for (const [i, other] of others.entries()) {
          const tile = (await other.next()).value!;
          this.#outputs[i].add(tile, truth, baseline, kept);
          this.#tops[i + 1].add(tile, truth, kept);
        }
      }
    }
  }

  #addStreams(sums: ErrorSums, rival: readonly Streams[], exact: readonly Streams[], base: readonly Streams[]): void {
    const { sequences, layout: { dim } } = this.options;
    sequences.forEach(({ length, mask }, item) => {
      const tile = (data: FloatArray): Tile => ({ start: 0, rows: length, cols: dim, data });
      exact[item].forEach((stream, part) => {
        sums.add(tile(rival[item][part]), tile(stream), tile(base[item][part]), mask);
      });
    });
  }

  #keptOutputs(sequence: number, { start, rows }: Tile): FloatArray | null {
    if (isClassifier(this.options.layout, false)) return null;
    return this.options.sequences[sequence].mask?.subarray(start, start + rows) ?? null;
  }

  #errors(sums: readonly ErrorSums[]): VariantError[] {
    return this.options.variants.map((variant, i) => ({ ...variant, ...sums[i].figures() }));
  }

  #layer(layer: number, sums: readonly ErrorSums[]): LayerDrift {
    const results = this.#errors(sums);
    const hidden = { results, best: bestOf(results) };
    const measure = this.measures.get(layer);
    if (!measure) return { layer, replaced: this.replaced(layer), attention: null, hidden };
    const { heads, kvHeads = heads, headDim } = measure.plan;
    const own = this.#errors(measure.sums);
    const phi = measure.phi / measure.rows;
    return {
      layer,
      replaced: true,
      attention: { heads, kvHeads, headDim, phi, results: own, best: bestOf(own) },
      hidden,
    };
  }

  findings(): DriftFindings {
    const { variants } = this.options;
    const [base, ...tops] = this.#tops.map((top) => this.#logits ? top.share() : null);
    const results = this.#errors(this.#outputs).map((error, i) => ({ ...error, top1: tops[i] }));
    const nonPositive = variants.map((_, i) =>
      this.measures.values().reduce((sum, measure) => sum + measure.nonPositive[i], 0)
    );
    return {
      variants,
      layers: this.#layers,
      outputs: {
        kind: this.#logits ? "logits" : "rows",
        cols: outputCols(this.options.layout, false),
        uniformTop1: base,
        results,
        best: bestOf(results),
      },
      nonPositive,
    };
  }
}

/** The share of rows whose largest column is the same in both outputs. */
class TopAgreement {
  #same = 0;
  #rows = 0;

  add(approx: Tile, exact: Tile, kept: FloatArray | null): void {
    for (let i = 0; i < exact.rows; i++) {
      if (kept && kept[i] === 0) continue;
      this.#rows++;
      if (topOf(approx, i) === topOf(exact, i)) this.#same++;
    }
  }

  share(): number {
    return this.#same / this.#rows;
  }
}

function topOf({ data, cols }: Tile, row: number): number {
  let best = row * cols;
  for (let c = best + 1; c < (row + 1) * cols; c++) if (data[c] > data[best]) best = c;
  return best - row * cols;
}
