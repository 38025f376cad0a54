/** What a step of the tour is, and the world it runs in. */
import type { PlotStyle } from "../plots/style.ts";

/** What a step is given: a place to print, and the prompt of the session that runs the tour. */
export interface TourWorld {
  readonly style: PlotStyle;
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  /** Shows a line as typed at the prompt and runs it; throws when it failed. */
  line(text: string): Promise<void>;
  /** Writes text as it is: it ends its own lines. */
  print(text: string): void;
}

/** What newcomers to the paper ask. */
export interface Question {
  readonly ask: string;
  readonly answer: string;
}

/** One idea: words, and code that shows it on live data. */
export interface TourStep {
  readonly title: string;
  /** Paragraphs, one a line; a line that begins with four spaces is a formula, an empty line is an empty line. */
  readonly text: string;
  /**
   * Measures and prints: a picture or numbers, then what they say. Numbers follow from seeds, times from the machine.
   * Throws the reason of `world.signal` when that is aborted, and what a line of the prompt threw.
   */
  run(world: TourWorld): Promise<void>;
  readonly questions?: readonly Question[];
  /** Lines for the prompt, to go on from here. */
  readonly tryIt?: readonly string[];
}
