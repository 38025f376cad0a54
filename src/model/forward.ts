/**
 * A forward pass. Activations are host arrays `rows × dim`; every dense layer and the attention of global heads run on a backend,
 * tile by tile; layers are read from the file one after the other and given back, so that a model never stands in memory whole.
 */
import { floats, type Tile } from "../tensor.ts";
import type { ModelLayout } from "./description.ts";
import type { Sequence } from "./embedding.ts";
import { Ledger } from "./ledger.ts";
import { type Context, Pass, type PassOptions, type Step } from "./pass.ts";
import { Room } from "./room.ts";
import { Weights } from "./weights.ts";

export interface ForwardOptions extends PassOptions {
  /** Gets the outputs of all sequences in order, tile by tile; a classifier makes one row per sequence. */
  readonly write: (sequence: number, tile: Tile) => Promise<void>;
  readonly progress?: (layer: number, layers: number) => void;
}

/** Runs a model over all sequences; returns where time and arithmetic went. */
export async function forward(options: ForwardOptions): Promise<Ledger> {
  const ledger = new Ledger();
  for await (const step of forwardSteps(options, ledger)) {
    if (step.kind === "output") await options.write(step.sequence, step.tile);
    if (step.kind === "layer") options.progress?.(step.layer + 1, options.layout.layers.length);
  }
  return ledger;
}

/** The same step by step, so that several passes can be compared as they go. */
export async function* forwardSteps(options: PassOptions, ledger = new Ledger()): AsyncGenerator<Step, void> {
  const { layout, sources, weights = new Weights(options.container, options.backend.limits.precision) } = options;
  using room = new Room(options.backend);
  const contexts = layout.encoder
    ? await encode(options, layout.encoder, sources!, weights, ledger, room)
    : options.contexts;
  yield* new Pass({ ...options, contexts }, weights, ledger, room).steps();
}

/** The encoder's last rows of every source sequence. */
async function encode(
  options: PassOptions,
  layout: ModelLayout,
  sources: readonly Sequence[],
  weights: Weights,
  ledger: Ledger,
  room: Room,
): Promise<Context[]> {
  const contexts = sources.map(({ length, mask }) => {
    return { rows: length, mask, data: floats(weights.precision, length * layout.dim) };
  });
  const inner = { ...options, layout, sequences: sources, encodings: true, watcher: null };
  for await (const step of new Pass(inner, weights, ledger, room).steps()) {
    if (step.kind !== "output") continue;
    const { start, rows, cols, data } = step.tile;
    contexts[step.sequence].data.set(data.subarray(0, rows * cols), start * cols);
  }
  return contexts;
}
