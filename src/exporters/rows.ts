/** The flat view of a report that csv and md share: one name and one value per column. */
import type { Report } from "../report.ts";

/** Columns in a stable order; empty where a run has no such figure. */
export function flatten(report: Report): [string, string | number][] {
  const { backend, input, attention, seconds, error, health } = report;
  // The head that attention serves worst stands for all of them.
  const worst = health?.heads.reduce((least, head) => head.skill < least.skill ? head : least);
  return [
    ["path", input.path],
    ["rows", input.rows],
    ["heads", input.heads],
    ["headDim", input.headDim],
    ["causal", String(attention.causal)],
    ["backend", backend.name],
    ["device", backend.device],
    ["features", attention.features],
    ["numFeatures", attention.numFeatures ?? ""],
    ["projection", attention.projection ?? ""],
    ["seed", attention.seed ?? ""],
    ["readSeconds", seconds.read],
    ["computeSeconds", seconds.compute],
    ["writeSeconds", seconds.write],
    ["checkSeconds", seconds.check],
    ["tokensPerSecond", report.tokensPerSecond],
    ["gflopsPerSecond", report.gflopsPerSecond],
    ["peakBytes", report.peakBytes],
    ["rowsChecked", error?.rowsChecked ?? ""],
    ["relativeL2", error?.relativeL2.value ?? ""],
    ["relativeL2Low", error?.relativeL2.low ?? ""],
    ["relativeL2High", error?.relativeL2.high ?? ""],
    ["uniformBaseline", error?.uniformBaseline ?? ""],
    ["skill", error?.skill ?? ""],
    ["phi", error?.phi ?? ""],
    ["worstHead", worst?.head ?? ""],
    ["worstSkill", worst?.skill ?? ""],
    ["worstVerdict", worst?.verdict ?? ""],
    ["worstEffectiveFeatures", worst?.effectiveFeatures?.median ?? ""],
    ["worstLogNormaliserBias", worst?.logNormaliserBias ?? ""],
    ["maxBytes", report.maxBytes ?? ""],
  ];
}
