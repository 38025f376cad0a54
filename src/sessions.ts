/** From the user's settings to a session of a backend: the one place where attention is opened to be measured. */
import { type Attention, parametersFor, type Sizes, transformFor } from "./attention.ts";
import type { Backend, Session } from "./backend.ts";
import type { MapParameters } from "./feature_map.ts";
import type { Fit } from "./fitted.ts";
import type { AttentionShape } from "./plan.ts";
import { prepareTransformed } from "./transformed.ts";

export interface OpenedSession {
  readonly session: Session;
  readonly parameters: MapParameters;
  /** Whether queries and keys go through a dense matrix before the map: `flopCount` wants to know. */
  readonly balanced: boolean;
}

/**
 * A session of redraw `draw` of the projection (0 is the one that `attend` uses): settings with the same seed and draw read the same
 * random stream, so that they can be compared in pairs. `fit`: what the map was fitted to. Throws UnsupportedError where the backend has no kernels for it.
 */
export async function openSession(
  backend: Backend,
  attention: Attention,
  sizes: Sizes,
  shape: AttentionShape,
  draw = 0,
  fit: Fit | null = null,
): Promise<OpenedSession> {
  const parameters = parametersFor(attention, sizes, draw, fit);
  const transform = transformFor(attention, sizes, fit);
  const session = await prepareTransformed(backend, { ...shape, parameters }, transform);
  return { session, parameters, balanced: transform?.kind === "dense" };
}
