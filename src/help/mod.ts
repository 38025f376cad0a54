/** All topics. Adding one is a value in the file of its group. */
import { BACKEND_TOPICS } from "./backends.ts";
import { FAR_FIELD_TOPICS } from "./far_fields.ts";
import { FEATURE_MAP_TOPICS } from "./feature_maps.ts";
import { GENERAL_TOPICS } from "./general.ts";
import { PROFILE_TOPICS } from "./profiles.ts";
import { PROJECTION_TOPICS } from "./projections.ts";
import type { Topic } from "./topic.ts";
import { USAGE_TOPICS } from "./usage.ts";

export const TOPICS: readonly Topic[] = [
  ...GENERAL_TOPICS,
  ...USAGE_TOPICS,
  ...FEATURE_MAP_TOPICS,
  ...FAR_FIELD_TOPICS,
  ...PROJECTION_TOPICS,
  ...BACKEND_TOPICS,
  ...PROFILE_TOPICS,
];
