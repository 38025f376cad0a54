/** The guided tour: every step runs, prints what it measured within the columns there are, and what it says is so. */
import { beforeAll, describe, expect, test } from "bun:test";
import * as library from "../../mod.ts";
import type { Terminal } from "../../src/commands/command.ts";
import { parse } from "../../src/commands/parse.ts";
import type { PlotStyle } from "../../src/plots/style.ts";
import { crossing, goesOn } from "../../src/tour/clock.ts";
import { afterText, stepText, TOUR, type TourStep, type TourWorld } from "../../src/tour/tour.ts";

// deno-lint-ignore no-control-regex
const bare = (text: string) => text.replace(/\x1b\[\d+m/g, "");
const linesOf = (text: string) => bare(text).split("\n").slice(0, -1);

/** A world that keeps what is printed, and the lines that would be run. */
class Recorded implements TourWorld {
  printed = "";
  readonly lines: string[] = [];

  constructor(readonly style: PlotStyle, readonly signal: AbortSignal = new AbortController().signal) {}

  async line(text: string): Promise<void> {
    this.lines.push(text);
  }

  print(text: string): void {
    this.printed += text;
  }
}

async function ran(step: TourStep, style: PlotStyle): Promise<Recorded> {
  const world = new Recorded(style);
  await step.run(world);
  return world;
}

/** Runs in 80 columns are shared by the tests: they measure the same numbers each time. */
const usual = new Map<TourStep, Promise<Recorded>>();
function ranUsual(step: TourStep): Promise<Recorded> {
  const run = usual.get(step) ?? ran(step, STYLES[0]);
  usual.set(step, run);
  return run;
}

const STYLES: readonly PlotStyle[] = [
  { columns: 80, ascii: false, color: false },
  { columns: 60, ascii: true, color: false },
  { columns: 120, ascii: false, color: true },
];

describe("every step", () => {
  for (const [index, step] of TOUR.entries()) {
    test(`${index + 1} ${step.title}`, async () => {
      for (const style of STYLES) {
        const { printed } = await (style === STYLES[0] ? ranUsual(step) : ran(step, style));
        const words = stepText(step, index, style.columns, style) + afterText(step, style.columns, style);
        for (const line of [...linesOf(printed), ...linesOf(words)]) {
          expect(line.length, line).toBeLessThanOrEqual(style.columns);
          expect(line).toBe(line.trimEnd());
          if (style.ascii) expect(line).toMatch(/^[\x20-\x7e]*$/);
        }
        expect(printed).toMatch(/\d/);
        expect(printed).not.toMatch(/NaN|undefined|Infinity/);
        expect(printed.endsWith("\n")).toBe(true);
        // Signs that the terminal's alphabet lacks are spelled, not lost.
        const marks = (text: string) => text.match(/\?/g)?.length ?? 0;
        expect(marks(words + printed)).toBe((step.questions ?? []).length + marks(step.text));
      }
    }, 60_000);
  }

  test("there are ten, and a step fits a screen of 40 lines of 80 columns", async () => {
    expect(TOUR.length).toBe(10);
    const heights = await Promise.all(TOUR.map(async (step, index) => {
      const { printed, lines } = await ranUsual(step);
      expect(linesOf(stepText(step, index, 80)).length).toBeLessThanOrEqual(16);
      // Reports of lines at the prompt come on top: about ten lines each but for assignments.
      return linesOf(stepText(step, index, 80) + printed + afterText(step, 80)).length + 2 * lines.length;
    }));
    expect(Math.max(...heights)).toBeLessThanOrEqual(40);
  }, 60_000);

  test("headings say which step it is", () => {
    expect(stepText(TOUR[2], 2, 80).split("\n")[0]).toBe(`  Step 3 of 10 · ${TOUR[2].title}`);
    expect(stepText(TOUR[2], 2, 80, { ascii: true, color: true })).toContain("\x1b[1mStep 3 of 10 - Random");
  });
});

describe("times", () => {
  test("curves meet where they cross on logarithmic axes", () => {
    const of = (y: (x: number) => number): [number, number][] => [100, 200, 400, 800].map((x) => [x, y(x)]);
    expect(crossing(of((x) => x * x), of((x) => 300 * x))).toBeCloseTo(300, 6);
    expect(crossing(of((x) => 300 * x), of((x) => x * x))).toBeCloseTo(300, 6);
    expect(crossing(of((x) => x), of((x) => 2 * x))).toBeNull();
  });

  test("slow machines stop at shorter lengths, but have two", () => {
    expect(goesOn([[256, 1e6]])).toBe(true);
    expect(goesOn([[256, 100], [512, 1e6]])).toBe(false);
    expect(goesOn([[256, 10], [512, 40]])).toBe(true);
  });
});

describe("Ctrl-C", () => {
  for (const [index, step] of TOUR.entries()) {
    test(`stops step ${index + 1}`, async () => {
      const gone = new AbortController();
      gone.abort(new Error("stopped before"));
      await expect(step.run(new Recorded(STYLES[0], gone.signal))).rejects.toThrow("stopped before");
      const going = new AbortController();
      setTimeout(() => going.abort(new Error("stopped on the way")), 1);
      await expect(step.run(new Recorded(STYLES[0], going.signal))).rejects.toThrow("stopped on the way");
    }, 30_000);
  }
});

describe("what is taught", () => {
  const all = TOUR.map((step) => `${step.title}\n${step.text}`).join("\n");

  test.each([
    ["quadratic bottleneck"],
    ["kernel"],
    ["trigonometric ones fail"],
    ["Positive features"],
    ["Orthogonal"],
    ["prefix sums"],
    ["redraw"],
    ["Centring"],
  ])("%s", (words) => expect(all).toContain(words));

  test.each([
    [/what is h\(x\) for/i],
    [/mask in the bidirectional case/i],
    [/for training or for inference/i],
    [/MSE ratio go to 0 near equal inputs/i],
    [/MLP then the bottleneck/i],
    [/compare at short L/i],
  ])("the question %p has an answer", (ask) => {
    const found = TOUR.flatMap(({ questions }) => questions ?? []).filter((question) => ask.test(question.ask));
    expect(found.length).toBe(1);
    expect(found[0].answer.length).toBeGreaterThan(80);
  });
});

describe("lines for the prompt", () => {
  const terminal: Terminal = {
    env: {},
    cwd: "/",
    stdinTTY: false,
    stdoutTTY: false,
    stderrTTY: false,
    columns: 80,
    runtime: "test",
    out() {},
    err() {},
    peakBytes: () => 0,
    signal: new AbortController().signal,
  };

  /** What a line is: a command of the table, an assignment, or JavaScript over the library. */
  function check(line: string, known: Set<string>): void {
    const assigned = /^(\w+) = randn\(\d+, \d+, \d+\)( [*+] [\d.]+)*$/.exec(line);
    if (assigned) return void known.add(assigned[1]);
    if (line.startsWith("js ")) {
      const value = new Function(...Object.keys(library), `return ${line.slice(3)}`)(...Object.values(library));
      return expect(Number.isFinite(value)).toBe(true);
    }
    const words = line.split(" ").map((word) => known.has(word) ? `${word}.npy` : word);
    const parsed = parse(words, terminal);
    expect(typeof parsed, line).toBe("object");
    if (typeof parsed === "object") {
      for (const input of parsed.invocation.arguments) expect(input, line).toEndWith(".npy"); // a variable that was made before
    }
  }

  test.each(TOUR.map((step, index) => [index + 1, step] as const))(
    "of step %d are read by the command table",
    async (_, step) => {
      const known = new Set<string>();
      for (const line of [...(await ranUsual(step)).lines, ...(step.tryIt ?? [])]) check(line, known);
    },
    30_000,
  );
});

describe("what steps say is so", () => {
  const said: string[] = [];
  beforeAll(async () => {
    for (const step of TOUR) said.push((await ranUsual(step)).printed.replace(/\s+/g, " "));
  }, 60_000);
  /** Numbers of a sentence of a step, counted from 1; groups of the pattern. */
  const numbers = (step: number, pattern: RegExp): number[] => {
    const found = pattern.exec(said[step - 1]);
    expect(found, `${pattern} in ${said[step - 1]}`).not.toBeNull();
    return found!.slice(1).map((text) => Number(text.replaceAll(",", "")));
  };

  test("2: both ways of bracketing agree", () => {
    const [apart, left, right] = numbers(2, /at most (\S+), multiply-adds are (\S+) on the left and (\S+) on/);
    expect(apart).toBeLessThan(1e-12);
    expect(right).toBeLessThan(left / 4);
  });

  test("3: trigonometric features destroy rows", () => {
    const [negative, tenfold] = numbers(3, /(\d+) rows are divided by 0 or less, (\d+) by/);
    const [error, others, uniform] = numbers(3, /outputs: ([\d.,]+)\. .*? it is ([\d.]+), and .*? has ([\d.]+)\./);
    expect(negative + tenfold).toBeGreaterThan(5);
    expect(error).toBeGreaterThan(others);
    expect(others).toBeGreaterThan(uniform);
  });

  test("4: positive features destroy none, and win where weights are small; keys need h", () => {
    const [near, far] = numbers(4, /features: (\S+) at 10°, [\d.]+ at 90°, (\S+) at 170°/);
    expect(near).toBeLessThan(0.01);
    expect(far).toBeGreaterThan(100);
    expect(numbers(4, /(\d+) sums of 0 or less/)).toEqual([0]);
    const [right, lacking] = numbers(4, /error is ([\d.]+), and ([\d.]+) when the keys lack h/);
    expect(lacking).toBeGreaterThan(1.2 * right);
  });

  test("5: hyperbolic features win at small s alone; medians are too small", () => {
    const [small, large] = numbers(5, /features have (\S+) of the error of positive ones, at s = 4 ([\d.]+)\./);
    expect(small).toBeCloseTo(Math.sqrt(1 - Math.exp(-0.25)), 1);
    expect(large).toBeGreaterThan(0.8);
    expect(numbers(5, /m = (\S+) at s = 1, (\S+) at s = 4/)).toEqual([172, 5360]);
    const [eight, sixteen] = numbers(5, /s = 8 is ([\d.]+) of the truth, at s = 16 ([\d.]+)\./);
    expect(eight).toBeLessThan(0.9);
    expect(sixteen).toBeLessThan(eight);
  });

  test("6: orthogonal projections have less error, as the formula has it", () => {
    for (const map of ["positive", "hyperbolic"]) {
      const row = (kind: string) => numbers(6, new RegExp(`${map}, ${kind} (\\S+) (\\S+) (\\S+) (\\S+)`));
      const measured = row("measured");
      for (const [i, formula] of row("formula").entries()) {
        expect(measured[i]).toBeLessThan(1);
        expect(Math.abs(measured[i] - formula)).toBeLessThan(0.1);
      }
    }
    const [iid, orthogonal] = numbers(6, /error ([\d.]+) with independent and ([\d.]+) with/);
    expect(orthogonal).toBeLessThan(iid);
  });

  test("7: more features, less error; masks act on keys", () => {
    const [error16] = numbers(7, /r = 16 \S+ (?:┊ )?([\d.]+)/);
    const [error1024] = numbers(7, /r = 1024 \S+ (?:┊ )?([\d.]+)/);
    const [uniform] = numbers(7, /mean of V, ([\d.]+)/);
    expect(error1024).toBeLessThan(error16);
    expect(error1024).toBeLessThan(uniform);
    const [right, wrong] = numbers(7, /error ([\d.]+) when the mask acts .*?; ([\d.]+) when it only/);
    expect(wrong).toBeGreaterThan(right);
  });

  test("8: rows before a changed key are the same bit for bit; the state does not grow", () => {
    const [earlier, same] = numbers(8, /Of (\d+) rows before a changed key, (\d+) have the same/);
    expect(same).toBe(earlier);
    for (const row of [1, 32, 64, 96, 128]) expect(said[7]).toMatch(new RegExp(`key ${row} \\S+ from row ${row} `));
    expect(said[7].match(/135 kB/g)?.length).toBe(3);
  });

  test("9: an interval of more draws is narrower; centring lessens the error and not softmax", () => {
    const [low5, high5, low60, high60] = numbers(9, /say \S+ \[(\S+), (\S+)\], all 60 \S+ \[(\S+), (\S+)\]/);
    expect(high60 / low60).toBeLessThan(high5 / low5);
    const [before, after, change] = numbers(9, /from (\S+) to (\S+) and changes exact softmax by (\S+)\. /);
    expect(after).toBeLessThan(before);
    expect(change).toBeLessThan(1e-12);
    const [errorBefore, errorAfter] = numbers(9, /Error: (\S+) before, (\S+) after/);
    expect(errorAfter).toBeLessThan(errorBefore);
  });

  test("10: near keys taken exactly do what features do not", () => {
    const [skill] = numbers(10, /features have a skill of (-?[\d.]+)/);
    expect(skill).toBeLessThan(0.5);
    const [error] = numbers(10, /with (\S+) of their error/);
    expect(error).toBeLessThan(0.2);
    expect(said[9]).toContain("Best is window 32");
  });

  test("numbers come from seeds", async () => {
    expect((await ran(TOUR[2], STYLES[0])).printed.replace(/\s+/g, " ")).toBe(said[2]);
    expect((await ran(TOUR[5], STYLES[0])).printed.replace(/\s+/g, " ")).toBe(said[5]);
  }, 30_000);
});
