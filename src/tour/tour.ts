/** The guided tour of the paper (arXiv 2009.14794): ten steps, each with words and code that runs on live data. */
import type { PlotStyle } from "../plots/style.ts";
import { bottleneck } from "./bottleneck.ts";
import { causal } from "./causal.ts";
import { kernel } from "./kernel.ts";
import { orthogonal } from "./orthogonal.ts";
import { pageText } from "./page.ts";
import { positive } from "./positive.ts";
import { redraws } from "./redraws.ts";
import { state } from "./state.ts";
import type { TourStep } from "./step.ts";
import { trained } from "./trained.ts";
import { trigonometric } from "./trigonometric.ts";
import { variance } from "./variance.ts";

export { afterText } from "./page.ts";
export type { Question, TourStep, TourWorld } from "./step.ts";

/** The steps, in the order they are taken. Each stands alone: none needs what another left behind. */
export const TOUR: readonly TourStep[] = [
  bottleneck,
  kernel,
  trigonometric,
  positive,
  variance,
  orthogonal,
  state,
  causal,
  redraws,
  trained,
];

/**
 * Heading and text of a step, wrapped to the columns; what follows below the step's numbers is `afterText`.
 * @param index from 0 @param style ASCII and colours; plain Unicode when left out
 */
export function stepText(
  step: TourStep,
  index: number,
  columns: number,
  style?: Pick<PlotStyle, "ascii" | "color">,
): string {
  return pageText(step, index, TOUR.length, columns, style);
}
