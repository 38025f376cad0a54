/** Settings in words, and as the flags that ask for them. */
import type { Attention, NearFarSettings } from "./attention.ts";

/** "window 64, heavy 64, taylor1" or "hyperbolic, m = 256, orthogonal". */
export function settingName({ features, numFeatures, projection, nearFar, shrink }: Attention): string {
  const shrunk = shrink === null || shrink === undefined ? [] : ["shrunk"];
  return [...(nearFar ? [nearFarName(nearFar)] : [features, `m = ${numFeatures}`, projection]), ...shrunk].join(", ");
}

/** "window 64, heavy 64, taylor1", "clusters 128, top 2". */
export function nearFarName({ window, heavy, far, clusters, top }: NearFarSettings): string {
  return [
    ...(window > 0 ? [`window ${window}`] : []),
    ...(heavy > 0 ? [`heavy ${heavy}`] : []),
    far === "clusters" ? `clusters ${clusters}` : far,
    ...(top > 0 ? [`top ${top}`] : []),
  ].join(", ");
}

/** The flags of `attend` that ask for these settings. */
export function settingFlags({ features, numFeatures, projection, nearFar, shrink }: Attention): string[] {
  const shrunk = shrink === null || shrink === undefined ? [] : [
    "--shrink",
    typeof shrink === "object" ? shrink.map((lambda) => Number(lambda.toPrecision(3))).join(",") : `${shrink}`,
  ];
  if (!nearFar) return ["--features", features, "-m", `${numFeatures}`, "--projection", projection, ...shrunk];
  const { window, heavy, far, clusters, top } = nearFar;
  const alone = window === 0 && heavy === 0;
  return [
    ...(window > 0 ? ["--window", `${window}`] : []),
    ...(heavy > 0 ? ["--heavy", `${heavy}`] : []),
    ...(alone && far !== "clusters"
      ? ["--features", far]
      : ["--far", far === "clusters" ? `clusters:${clusters}` : far]),
    ...(top > 0 ? ["--top", `${top}`] : []),
    ...shrunk,
  ];
}
