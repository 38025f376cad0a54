/**
 * The library: what scripts may use.
 *
 * ```ts
 * import { openFirst, parseBackendList } from "performer";
 * const { backend } = await openFirst(parseBackendList("auto"));
 * ```
 *
 * @module
 */
export { type Attention, parametersFor, type Sizes, transformFor } from "./src/attention.ts";
export type { Backend, Driver, ExactSession, Session } from "./src/backend.ts";
export { CANDIDATES, openFirst, parseBackendList } from "./src/backends/mod.ts";
export { alibiSlopes } from "./src/decay.ts";
export { type CompareFindings, type CompareRow, type Entrant, entrantsOf } from "./src/compare.ts";
export { type CompareOptions, compareSettings } from "./src/compare_measure.ts";
export { InputError, PerformerError, TransientError, UnsupportedError, UsageError } from "./src/errors.ts";
export { bindMap, FEATURE_MAPS, type FeatureMap, featureMap, type MapParameters } from "./src/feature_map.ts";
export { fitInputs, planFit } from "./src/fit.ts";
export type { Fit, FitWish } from "./src/fitted.ts";
export {
  bestQuadratic,
  type KernelEstimator,
  relativeKernelError,
  relativeRegularisedError,
} from "./src/closed_forms.ts";
export { openContainer } from "./src/formats/mod.ts";
export { Inputs } from "./src/inputs.ts";
export { compareOutputs, METRICS } from "./src/metrics.ts";
export type { ExactPlan, Plan } from "./src/plan.ts";
export { drawProjection, PROJECTIONS } from "./src/projection.ts";
export { type PredictedError, predictedError } from "./src/predicted_error.ts";
export type { Report } from "./src/report.ts";
export { attend } from "./src/run.ts";
export type { AttendOptions } from "./src/run_base.ts";
export { copyState, emptyState, mergeInto, mergeLater, type State } from "./src/state.ts";
export type { TensorSink, TensorSource, Tile } from "./src/tensor.ts";
export { prepareTransformed } from "./src/transformed.ts";
