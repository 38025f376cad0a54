/** From looks at a long-lived process to ten lines and a verdict. Pure. */

/** One look. */
export interface Sample {
  /** Units of work done so far. */
  readonly done: number;
  readonly seconds: number;
  /** Of all its threads. */
  readonly processorSeconds: number;
  readonly residentBytes: number;
  readonly descriptors: number;
}

/** What happened in one tenth of the work: medians of looks, units per second, and the most descriptors. */
export interface Tenth {
  readonly samples: number;
  readonly perSecond: number;
  /** Units per second of the process's own time: what others do on the machine touches it less. */
  readonly perProcessorSecond: number;
  readonly residentBytes: number;
  readonly descriptors: number;
}

export interface Verdict {
  readonly what: string;
  readonly passed: boolean;
  readonly found: string;
}

/** Resident memory of every tenth after the first lies within this share of their median. */
const FLAT_MEMORY = 0.05;
/** Units per second of processor time: the median of the last three tenths is no smaller than that of tenths 2 to 4 by more than this share. */
const FLAT_SPEED = 0.1;
/** Relative L2: what float32 outputs of float64 sums differ by. */
const MOST_DRIFT = 1e-5;

const median = (numbers: readonly number[]): number => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

/** Cuts samples by the work that was done. Throws when a tenth was not looked at twice: look more often, or do more. */
export function tenthsOf(samples: readonly Sample[], total: number): Tenth[] {
  return Array.from({ length: 10 }, (_, t) => {
    const inside = samples.filter(({ done }) => done > 0 && done >= total * t / 10 && done <= total * (t + 1) / 10);
    if (inside.length < 2) {
      throw new RangeError(`Tenth ${t + 1} was looked at ${inside.length} times, expected at least 2`);
    }
    const [first, last] = [inside[0], inside.at(-1)!];
    const done = last.done - first.done;
    return {
      samples: inside.length,
      perSecond: done / (last.seconds - first.seconds),
      perProcessorSecond: done / (last.processorSeconds - first.processorSeconds),
      residentBytes: median(inside.map(({ residentBytes }) => residentBytes)),
      descriptors: Math.max(...inside.map(({ descriptors }) => descriptors)),
    };
  });
}

/** What is to be said of them; the first tenth is the warm-up. */
export function verdicts(tenths: readonly Tenth[], drift: readonly number[], flatMemory = FLAT_MEMORY): Verdict[] {
  const warm = tenths.slice(1);
  const sizes = warm.map(({ residentBytes }) => residentBytes);
  const middle = median(sizes);
  const off = Math.max(...sizes.map((bytes) => Math.abs(bytes / middle - 1)));
  const speeds = warm.map(({ perProcessorSecond }) => perProcessorSecond);
  const ratio = median(speeds.slice(-3)) / median(speeds.slice(0, 3));
  const open = warm.map(({ descriptors }) => descriptors);
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  return [
    {
      what: `resident memory within ${percent(flatMemory)} of its median after the first tenth`,
      passed: off <= flatMemory,
      found: `${percent(off)} at most, median ${(middle / 1e6).toFixed(1)} MB`,
    },
    {
      what: `speed per processor second of the last three tenths at least ${
        percent(1 - FLAT_SPEED)
      } of that of tenths 2 to 4`,
      passed: ratio >= 1 - FLAT_SPEED,
      found: percent(ratio),
    },
    {
      what: "no more descriptors in the last tenth than in the second",
      passed: open.at(-1)! <= open[0],
      found: `${open[0]} → ${open.at(-1)}`,
    },
    ...(drift.length > 0
      ? [{
        what: `outputs at the ends of tenths within ${MOST_DRIFT} (relative L2) of what they must be`,
        passed: drift.every((distance) => distance <= MOST_DRIFT),
        found: `${Math.max(...drift).toExponential(1)} at most, ${drift.at(-1)!.toExponential(1)} at the end`,
      }]
      : []),
  ];
}

/** A table in Markdown. */
export function table(tenths: readonly Tenth[], unit: string, drift: readonly number[]): string {
  const whole = (n: number) => Math.round(n).toLocaleString("en");
  const some = (n: number) => n < 100 ? n.toFixed(1) : whole(n);
  const lines = tenths.map((tenth, t) => [
    t + 1,
    some(tenth.perSecond),
    some(tenth.perProcessorSecond),
    (tenth.residentBytes / 1e6).toFixed(1),
    tenth.descriptors,
    ...(drift.length > 0 ? [drift[t].toExponential(1)] : []),
  ]);
  const header = [
    "tenth",
    `${unit}/s`,
    `${unit} per processor second`,
    "resident MB",
    "descriptors",
    ...(drift.length > 0 ? ["drift"] : []),
  ];
  return [header, header.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}
