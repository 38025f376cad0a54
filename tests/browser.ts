/**
 * A real headless Chromium for pages: the one of npm `@sparticuz/chromium`, unpacked once per user, driven by puppeteer-core. Both are
 * packages of this repository's development only.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync } from "node:zlib";
import puppeteer, { type Browser } from "puppeteer-core";
import { tarFiles } from "../src/backends/webgpu_swiftshader.ts";

const ARCHIVES = fileURLToPath(new URL("../node_modules/@sparticuz/chromium/bin/", import.meta.url));

/** The folder with the program and the libraries that a bare system lacks; another process may unpack it at the same time. */
function unpack(): string {
  const { version } = JSON.parse(readFileSync(join(ARCHIVES, "../package.json"), "utf8"));
  const folder = join(tmpdir(), `performer-chromium-${version}-${userInfo().uid}`);
  if (existsSync(join(folder, "chromium"))) return folder;
  const fresh = mkdtempSync(`${folder}-`);
  const open = (name: string) => brotliDecompressSync(readFileSync(join(ARCHIVES, name)));
  writeFileSync(join(fresh, "chromium"), open("chromium.br"));
  chmodSync(join(fresh, "chromium"), 0o755);
  for (const archive of ["al2023.tar.br", "swiftshader.tar.br"]) {
    for (const { name, bytes } of tarFiles(open(archive))) {
      mkdirSync(join(fresh, dirname(name)), { recursive: true });
      writeFileSync(join(fresh, name), bytes);
    }
  }
  try {
    renameSync(fresh, folder);
  } catch {
    rmSync(fresh, { recursive: true, force: true });
  }
  return folder;
}

/** Whether that Chromium runs here: it is built for this system only. */
export const HAS_BROWSER = process.platform === "linux" && process.arch === "x64";

/** Starts the browser; what a page would fetch from elsewhere finds no network. */
export async function openBrowser(): Promise<Browser> {
  const folder = unpack();
  return await puppeteer.launch({
    executablePath: join(folder, "chromium"),
    headless: "shell",
    // The sandbox needs rights that containers lack; the pages are our own.
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--single-process",
      "--no-zygote",
      "--hide-scrollbars",
      "--force-color-profile=srgb",
    ],
    env: {
      ...process.env,
      LD_LIBRARY_PATH: [join(folder, "lib"), process.env.LD_LIBRARY_PATH].filter(Boolean).join(":"),
    },
  });
}

/** What a page did and how it looks. */
export interface Visit {
  /** Console messages and uncaught errors. */
  readonly console: readonly string[];
  /** Addresses asked for beside the page itself. */
  readonly requests: readonly string[];
  /** Width that the page wants in px, which is more than the window's where something sticks out. */
  readonly scrollWidth: number;
  /** Texts of headings, and of all text in charts that is visible. */
  readonly headings: readonly string[];
  readonly chartTexts: readonly string[];
  /** Charts that are visible, and their widths. */
  readonly charts: readonly number[];
  /** Colour of the page and of its text. */
  readonly background: string;
  readonly colour: string;
  /** The smallest text in a visible chart, in px as shown. */
  readonly leastText: number;
}

/** Opens a file in a window of some width and colour scheme; `picture`: where to save a screenshot of all of it. */
export async function visit(
  browser: Browser,
  path: string,
  { width, dark, picture }: { readonly width: number; readonly dark: boolean; readonly picture?: string },
): Promise<Visit> {
  const tab = await browser.newPage();
  try {
    const console: string[] = [], requests: string[] = [];
    tab.on("console", (message) => console.push(`${message.type()}: ${message.text()}`));
    tab.on("pageerror", (error) => console.push(String(error)));
    tab.on("requestfailed", (request) => console.push(`failed: ${request.url()}`));
    await tab.setViewport({ width, height: 900, deviceScaleFactor: 1 });
    await tab.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
    const address = new URL(`file://${path.split("/").map(encodeURIComponent).join("/")}`).href;
    tab.on("request", (request) => {
      if (request.url() !== address && !request.url().startsWith("data:")) requests.push(request.url());
    });
    await tab.goto(address, { waitUntil: "load" });
    const seen = await tab.evaluate(() => {
      const shown = [...document.querySelectorAll("svg.chart")].filter((svg) => svg.getBoundingClientRect().width > 0);
      const texts = shown.flatMap((svg) =>
        [...svg.querySelectorAll("text")].filter((text) => text.textContent!.trim() !== "")
      );
      const style = getComputedStyle(document.body);
      const scales = shown.map((svg) =>
        svg.getBoundingClientRect().width / (svg as SVGSVGElement).viewBox.baseVal.width
      );
      return {
        scrollWidth: document.documentElement.scrollWidth,
        headings: [...document.querySelectorAll("h1,h2,h3")].map((heading) => heading.textContent!),
        chartTexts: texts.map((text) => text.textContent!),
        charts: shown.map((svg) => svg.getBoundingClientRect().width),
        background: style.backgroundColor,
        colour: style.color,
        leastText: Math.min(
          ...shown.flatMap((svg, i) =>
            [...svg.querySelectorAll("text")].map((text) => scales[i] * parseFloat(getComputedStyle(text).fontSize))
          ),
        ),
      };
    });
    if (picture) await tab.screenshot({ path: picture as `${string}.png`, fullPage: true });
    return { console, requests, ...seen };
  } finally {
    await tab.close();
  }
}
