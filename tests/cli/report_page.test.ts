/** `--report`: pages in a real browser, at the widths of a phone and of a desk, in both colour schemes. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Browser } from "puppeteer-core";
import { HAS_BROWSER, openBrowser, visit } from "../browser.ts";
import { inside, npyBytes, performer, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
let browser: Browser | undefined;

/** A name that would be markup, in a page that did not escape it. */
const HOSTILE = "a<img src=x onerror=alert(1)>&'\".npy";
const WASM = ["--backend", "wasm"];

/** Pages by name, and the command that makes each. */
const PAGES: Readonly<
  Record<string, { readonly args: readonly string[]; readonly heading: string; readonly charts: number }>
> = {
  attend: {
    args: ["attend", path(HOSTILE), "--heads", "4", "--health", "--redraws", "2", ...WASM],
    heading: `Attention over ${HOSTILE}`,
    charts: 3,
  },
  compare: {
    args: [
      "compare",
      path("x.npy"),
      "--heads",
      "2",
      "--features",
      "hyperbolic,trigonometric,taylor1",
      "-m",
      "16,64",
      ...WASM,
    ],
    heading: "Settings compared on x.npy",
    charts: 2,
  },
  tune: {
    args: ["tune", path("x.npy"), "--heads", "2", "--error", "20%", "--features", "hyperbolic", "-m", "16,64", ...WASM],
    heading: "Cheapest attention for x.npy",
    charts: 1,
  },
  bench: {
    args: [
      "bench",
      ...WASM,
      "--features",
      "positive,softmax",
      "-L",
      "64,128,256",
      "--heads",
      "1",
      "--head-dim",
      "16",
      "--seconds",
      "0.1",
      "--samples",
      "3",
    ],
    heading: "Speed of attention",
    charts: 2,
  },
};

beforeAll(async () => {
  writeFileSync(path("x.npy"), npyBytes([300, 32], wave));
  writeFileSync(path(HOSTILE), npyBytes([300, 32], (i) => 1.5 * wave(i)));
  writeFileSync(path("many.npy"), npyBytes([40, 2048], (i) => i % 2048 < 1024 ? 0 : wave(i)));
  writeFileSync(path("one.npy"), npyBytes([1, 8], wave));
  writeFileSync(path("zeros.npy"), npyBytes([40, 8], () => 0));
  for (const [name, { args }] of Object.entries(PAGES)) {
    const { code, stderr } = await inside([...args, "--report", path(`${name}.html`), "--quiet"]);
    expect([name, code, stderr]).toEqual([name, 0, ""]);
  }
  if (HAS_BROWSER) browser = await openBrowser();
}, 120_000);
afterAll(async () => {
  await browser?.close();
  remove();
});

describe.each(Object.entries(PAGES))("the page of %s", (name, { args, heading, charts }) => {
  test.skipIf(!HAS_BROWSER).each([[1440, false], [1440, true], [360, false], [360, true]])(
    "at %i px, dark %p: nothing fetched, nothing logged, nothing sticks out",
    async (width, dark) => {
      const seen = await visit(browser!, path(`${name}.html`), { width, dark });
      expect(seen.console).toEqual([]);
      expect(seen.requests).toEqual([]);
      expect(seen.scrollWidth).toBeLessThanOrEqual(width);
      expect(seen.headings[0]).toBe(heading);
      // One drawing of each chart is shown: that for the width.
      expect(seen.charts).toHaveLength(charts);
      for (const chart of seen.charts) expect(chart).toBeWithin(250, Math.min(width, 1000));
      // As large as the small print of a page; a picture scaled down to a phone would have 4 px.
      expect(seen.leastText).toBeGreaterThan(9);
      expect(seen.background).toBe(dark ? "rgb(22, 24, 28)" : "rgb(255, 255, 255)");
      expect(seen.colour).toBe(dark ? "rgb(236, 236, 236)" : "rgb(26, 26, 26)");
      expect(seen.chartTexts.length).toBeGreaterThan(8);
    },
    60_000,
  );

  test("one file, small, with the command that made it, and no name of a part twice", () => {
    const page = readFileSync(path(`${name}.html`), "utf8");
    expect(page.length).toBeLessThan(1.5e6);
    expect(page).not.toMatch(/<script|<link rel="stylesheet"|https?:(?!\/\/www\.w3\.org\/)|<img/);
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    const used = [...page.matchAll(/url\(#([^)]+)\)/g)].map(([, id]) => id);
    expect(used.filter((id) => !ids.includes(id))).toEqual([]);
    expect(page).toContain(`performer ${args[0]} `);
    expect(page).toContain("How it was made");
  });
});

test("what the pages say", () => {
  const said = (name: string) => readFileSync(path(`${name}.html`), "utf8");
  expect(said("attend")).toContain("&lt;img src=x onerror=alert(1)&gt;&amp;&#39;&quot;.npy");
  for (
    const words of [
      "skill",
      "uniform baseline",
      "How the error is spread over rows",
      "Where in the sequence the error is",
      "Error of every head",
      "Health per head",
      "more draws of the projection",
    ]
  ) {
    expect(said("attend")).toContain(words);
  }
  for (
    const words of [
      "Error against the number of features",
      "Error against time",
      "mean of V (uniform)",
      "taylor1",
      "To use the best",
    ]
  ) {
    expect(said("compare")).toContain(words);
  }
  for (const words of ["target 20 %", "exact attention", "What to run", "performer attend"]) {
    expect(said("tune")).toContain(words);
  }
  for (const words of ["exact softmax", "identity (returns V)", "time ~ L^", "Throughput against length"]) {
    expect(said("bench")).toContain(words);
  }
});

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("a page is written beside the report, and holds the same numbers", async () => {
    const file = path(`${runtime}.html`);
    const { code, stdout, stderr } = await performer([
      "attend",
      path("x.npy"),
      "--heads",
      "2",
      ...WASM,
      "--json",
      "--report",
      file,
    ], { runtime });
    expect([code, stderr]).toEqual([0, ""]);
    const { error } = JSON.parse(stdout);
    expect(readFileSync(file, "utf8")).toContain(`&quot;skill&quot;: ${error.skill}`);
  });
});

describe("inputs that are hard to draw", () => {
  test("512 heads, half of them without an output: readable, small, and said so", async () => {
    const file = path("many.html");
    await inside(["attend", path("many.npy"), "--heads", "512", ...WASM, "--report", file, "-q"]);
    const page = readFileSync(file, "utf8");
    expect(page).toContain("The 24 worst of 512 heads.");
    expect(page).toContain("512 points are not a finite number");
    expect(page.length).toBeLessThan(1.5e6);
    if (!browser) return; // what follows needs Chromium
    const seen = await visit(browser, file, { width: 360, dark: false });
    expect([seen.console, seen.charts.length]).toEqual([[], 3]);
  }, 60_000);

  test("one row, values of 0, exact attention, no check: sentences in place of charts", async () => {
    const made = async (name: string, ...args: string[]) => {
      await inside(["attend", path(name), ...WASM, ...args, "--report", path("hard.html"), "-q"]);
      return readFileSync(path("hard.html"), "utf8");
    };
    expect(await made("zeros.npy")).toContain("There is nothing to draw for");
    expect(await made("one.npy", "--params", "fixed")).toContain("How it was made");
    expect(await made("x.npy", "--features", "softmax")).toContain(
      "This is exact softmax attention: there is no error",
    );
    expect(await made("x.npy", "--check", "0")).toContain("The error was not checked");
  });
});

describe("where the page goes", () => {
  test("a name that is no page, and the output's own, are refused before anything is computed", async () => {
    const other = await inside(["attend", path("x.npy"), "--report", "page.pdf"]);
    expect([other.code, other.stderr]).toEqual([
      2,
      "performer: Cannot use --report page.pdf: expected a name that ends in .html\n",
    ]);
    const nowhere = await inside(["attend", path("x.npy"), "--report", path("none/page.html")]);
    expect([nowhere.code, nowhere.stdout]).toEqual([2, ""]);
  });

  test("a run that fails leaves the page of before, and no temporary file", async () => {
    writeFileSync(path("kept.html"), "the page of before");
    const { code } = await inside(["attend", path("missing.npy"), "--report", path("kept.html")]);
    expect(code).toBe(3);
    expect(readFileSync(path("kept.html"), "utf8")).toBe("the page of before");
    expect(readdirSync(dirname(path("x"))).filter((name) => name.includes("kept") && name !== "kept.html")).toEqual([]);
    expect(existsSync(path("missing.html"))).toBe(false);
  });

  test("--max-error still decides the exit code", async () => {
    const { code } = await inside([
      "attend",
      path("x.npy"),
      ...WASM,
      "--max-error",
      "0",
      "--report",
      path("max.html"),
      "-q",
    ]);
    expect(code).toBe(1);
    expect(statSync(path("max.html")).size).toBeGreaterThan(5000);
  });
});
