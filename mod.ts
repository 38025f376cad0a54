/**
 * The library: what scripts, notebooks and the interactive mode may use.
 *
 * ```ts
 * import { attend, normal } from "performer";
 *
 * const x = normal([1000, 64], { sd: 0.5 });
 * const { output, report } = await attend(x, { features: "hyperbolic", numFeatures: 256 });
 * console.log(output.shape, report.error?.relativeL2.value);
 * ```
 *
 * The first groups are for every day (docs/library.md); the last holds the parts they are made of, for those who build on them.
 *
 * @module
 */

// Tensors and files
export { normal, type NormalOptions, type Rows, type Tensor, tensor, type ViewOptions } from "./src/library/tensor.ts";
export type { HeadOptions, Viewer } from "./src/library/tensor.ts";
export type {
  FloatArray,
  Precision,
  RowRange,
  TensorInfo,
  TensorSink,
  TensorSource,
  Tile,
  TileOptions,
} from "./src/tensor.ts";
export type { OutputDType } from "./src/formats/decode.ts";
export type { TensorView } from "./src/formats/view.ts";
export { load, loadAll, type LoadOptions, save, type TensorSet } from "./src/library/files.ts";

// Attention
export {
  attend,
  type AttendCall,
  type AttendResult,
  type AttendSettings,
  attendTo,
  openBackend,
  type QueriesKeysValues,
  relativeError,
  reportText,
  softmaxAttention,
  type Target,
} from "./src/library/attend.ts";
export type { AttentionSettings, FeatureSettings } from "./src/library/settings.ts";
export type { ErrorReport, HealthReport, Report } from "./src/report.ts";

// Features
export { drawProjection, type DrawSettings, phi, type PhiSettings } from "./src/library/features.ts";
export type { RowNorms } from "./src/projection.ts";
export { FAR_FIELDS, type FarField, FEATURE_MAPS, type FeatureMap, featureMap } from "./src/feature_map.ts";
export { PROJECTIONS } from "./src/projection.ts";

// States
export {
  loadState,
  type LoadStateOptions,
  newState,
  type PerformerState,
  restoreState,
  type SavedState,
  saveState,
  type StateRows,
  type StateSettings,
} from "./src/library/state.ts";

// Models
export { type GenerateSettings, type LoadedModel, loadModel, type ModelOptions } from "./src/library/model.ts";

export type { ModelLayout } from "./src/model/description.ts";
export type { RulesName } from "./src/rules_table.ts";

// Errors that somebody catches
export { InputError, PerformerError, TransientError, UnsupportedError, UsageError } from "./src/errors.ts";

// Predictions in closed form
export {
  bestQuadratic,
  type KernelEstimator,
  relativeKernelError,
  relativeRegularisedError,
} from "./src/closed_forms.ts";
export { type PredictedError, predictedError } from "./src/predicted_error.ts";

// Parts
export { type Attention, parametersFor, type Sizes, transformFor } from "./src/attention.ts";
export type { Backend, Driver, ExactSession, Session } from "./src/backend.ts";
export { CANDIDATES, openFirst, parseBackendList } from "./src/backends/mod.ts";
export { type CompareFindings, type CompareRow, type Entrant, entrantsOf } from "./src/compare.ts";
export { type CompareOptions, compareSettings } from "./src/compare_measure.ts";
export { alibiSlopes } from "./src/decay.ts";
export { bindMap, type MapParameters } from "./src/feature_map.ts";
export { fitInputs, planFit } from "./src/fit.ts";
export type { Fit, FitWish } from "./src/fitted.ts";
export { openContainer } from "./src/formats/mod.ts";
export { Inputs } from "./src/inputs.ts";
export { compareOutputs, METRICS } from "./src/metrics.ts";
export type { ExactPlan, Plan } from "./src/plan.ts";
export { attend as runAttention } from "./src/run.ts";
export type { AttendOptions } from "./src/run_base.ts";
export { copyState, emptyState, mergeInto, mergeLater, type State } from "./src/state.ts";
export { prepareTransformed } from "./src/transformed.ts";
