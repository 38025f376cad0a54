/**
 * States of one layer of a model as files. What their numbers mean is in the plan, which they name; a file says besides which rows its keys
 * were made of, so that it is known when those were computed anew from something else.
 */
import { join } from "node:path";
import { changeTime } from "../bytes.ts";
import { InputError } from "../errors.ts";
import { writeTensors } from "../formats/archive.ts";
import { openContainer } from "../formats/mod.ts";
import { copyState, emptyState, mergeInto, type State } from "../state.ts";
import { STATE_SUFFIX, written } from "../state_file.ts";
import { digestOf } from "../stored_state.ts";
import { VERSION } from "../version.ts";
import type { LayerPlan } from "./model_plan.ts";
import { shardName } from "./plan.ts";
import { noteOf, requireClaim, rowsOf, type StateFiles, type Survey, surveyStates } from "./states.ts";

/** Raised when the file changes its meaning. */
export const LAYER_STATE_SCHEMA = "performer-layer-state/1";

/** What keys of the first layer are made of. */
export const FROM_INPUT = "input";

/** The state of some rows of a layer. */
export interface LayerState {
  readonly state: State;
  /** Rows absorbed, masked ones counted. */
  readonly rows: number;
  /** What its keys were made of: the `state` of the note of those rows (parts.ts), or `FROM_INPUT`; "" where it is of several. */
  readonly madeOf: string;
}

/** The states of a layer as files. */
export const layerStates = (plan: LayerPlan): StateFiles<LayerState> => ({
  async read(path, shards) {
    await using container = await openContainer(path);
    const { metadata } = container;
    if (metadata.schema !== LAYER_STATE_SCHEMA) {
      throw new InputError(
        `Cannot use state "${path}": it is no state of a layer, expected what shard map and merge write`,
      );
    }
    requireClaim(path, metadata, plan, shards);
    const { heads, features, headDim } = plan.sums;
    const numbers = async (name: string, wanted: readonly number[]) => {
      const { shape, dtype, typeName } = container.member(name);
      if (dtype !== "f64" || shape.join() !== wanted.join()) {
        throw new InputError(
          `Cannot use state "${path}": tensor "${name}" is ${typeName} [${shape.join(", ")}], expected F64 [${
            wanted.join(", ")
          }]`,
        );
      }
      return (await container.readAll(name, "f64")).data as Float64Array;
    };
    const state: State = {
      heads,
      features,
      valueDim: headDim,
      c: await numbers("c", [heads, features]),
      z: await numbers("z", [heads, features]),
      S: await numbers("S", [heads, features, headDim]),
      keys: Number(metadata.keys),
    };
    const rows = rowsOf(plan, shards);
    if (metadata.digest !== digestOf({ rows, state })) {
      throw new InputError(
        `Cannot use state "${path}": its sums are not those that were written, or not of ${rows} rows`,
      );
    }
    return { state, rows, madeOf: metadata.madeOf ?? "", bytes: container.source.byteLength };
  },
  async write(path, shards, { state, rows, madeOf }) {
    const { heads, features, valueDim, c, z, S } = state;
    const tensors = [
      written(["c", [heads, features], c]),
      written(["z", [heads, features], z]),
      written(["S", [heads, features, valueDim], S]),
    ];
    return await writeTensors(path, tensors, {
      ...noteOf(plan, shards),
      schema: LAYER_STATE_SCHEMA,
      version: VERSION,
      layer: String(plan.layer),
      keys: String(state.keys),
      madeOf,
      digest: digestOf({ rows, state }),
    });
  },
  empty: ({ state: { heads, features, valueDim } }) => {
    return { state: emptyState(heads, features, valueDim), rows: 0, madeOf: "" };
  },
  async add(earlier, later) {
    const state = copyState(earlier.state);
    mergeInto(state, later.state);
    return { state, rows: earlier.rows + later.rows, madeOf: "" };
  },
});

/** States of single shards in a folder. Those of other rows than `madeOf` says are `damaged`; where it is null nothing is known of the rows. */
export async function surveyLayerStates(
  plan: LayerPlan,
  folder: string,
  madeOf: (id: number) => Promise<string | null>,
): Promise<Survey> {
  const survey = await surveyStates(plan, folder);
  const stale: number[] = [];
  for (const id of survey.done) {
    const wanted = await madeOf(id);
    if (wanted === null) continue;
    await using container = await openContainer(join(folder, shardName(plan, id) + STATE_SUFFIX));
    if (container.metadata.madeOf !== wanted) stale.push(id);
  }
  const damaged = [...survey.damaged, ...stale].sort((a, b) => a - b);
  return { ...survey, done: survey.done.filter((id) => !stale.includes(id)), damaged };
}

/** Whether a state that merge writes is there, by its header. */
export async function isMerged(
  plan: LayerPlan,
  path: string,
  shards: { start: number; end: number },
): Promise<boolean> {
  if (changeTime(path) === null) return false;
  try {
    await using container = await openContainer(path);
    requireClaim(path, container.metadata, plan, shards);
    return container.metadata.schema === LAYER_STATE_SCHEMA;
  } catch (error) {
    if (error instanceof InputError) return false;
    throw error;
  }
}
