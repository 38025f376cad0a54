/** Specifications as pictures: SVG by Vega-Lite, PNG by resvg. Both are optional packages, loaded when first drawn with. */
import { assets } from "../assets.ts";
import { UsageError } from "../errors.ts";

/** What `npm install` must add, for messages. */
const VEGA = ["vega", "vega-lite"];
const RESVG = ["@resvg/resvg-wasm", "dejavu-fonts-ttf"];
const FONT_FILE = "dejavu-fonts-ttf/ttf/DejaVuSans.ttf";
const BOLD_FILE = "dejavu-fonts-ttf/ttf/DejaVuSans-Bold.ttf";

const missing = (what: string, packages: readonly string[]) =>
  new UsageError(
    `Cannot draw ${what}: the packages ${
      packages.join(" and ")
    } are needed and at least one is not installed; run npm install ${packages.join(" ")}`,
  );

/** Loads an optional package; only its own absence is excused. */
async function optional<T>(load: () => Promise<T>, what: string, packages: readonly string[]): Promise<T> {
  try {
    return await load();
  } catch (error) {
    if (packages.some((name) => isAbsence(error, name))) throw missing(what, packages);
    throw error;
  }
}

/** Whether an import failed because the package is not there: runtimes say so in words of their own. */
function isAbsence(error: unknown, name: string): boolean {
  const { code, message = "" } = error as { code?: string; message?: string };
  return message.includes(name) && (code === "ERR_MODULE_NOT_FOUND" || code === "MODULE_NOT_FOUND" ||
    /Cannot find (package|module)|not a dependency|could not (find|resolve)/i.test(message));
}

type Vega = typeof import("vega");
type VegaLite = typeof import("vega-lite");
let vega: Promise<{ readonly vega: Vega; readonly lite: VegaLite }> | null = null;

function loadVega(): Promise<{ readonly vega: Vega; readonly lite: VegaLite }> {
  vega ??= optional(
    async () => {
      const [vega, lite] = await Promise.all([import("vega"), import("vega-lite")]);
      // Without a canvas it reckons with letters as wide as they are high; those of DejaVu Sans are 0.59 of that in the mean.
      const metrics =
        (vega as unknown as { textMetrics: { width(item: { fontSize?: number }, text: string): number } }).textMetrics;
      metrics.width = ({ fontSize = 11 }, text) => 0.59 * fontSize * String(text ?? "").length;
      return { vega, lite };
    },
    "pictures",
    VEGA,
  );
  return vega;
}

/** The SVG of a Vega-Lite specification. Throws UsageError where the packages are not installed. */
export async function drawSvg(spec: object): Promise<string> {
  const { vega, lite } = await loadVega();
  const { spec: compiled } = lite.compile(spec as never, { logger: quietLogger() as never });
  const view = new vega.View(vega.parse(compiled), { renderer: "none" }).logLevel(vega.Error);
  try {
    return short(await view.toSVG());
  } finally {
    view.finalize();
  }
}

/** Vega's warnings are about specifications that people write by hand. */
function quietLogger(): object {
  const logger = {
    level: () => logger,
    error: (words: string) => {
      throw new Error(words);
    },
    warn: () => logger,
    info: () => logger,
    debug: () => logger,
  };
  return logger;
}

/**
 * Positions to a hundredth of a pixel: half the bytes, and no eye sees more. Roles of the parts tell a screen reader nothing: whoever
 * shows the picture names it. Cells of heat maps meet without seams.
 */
function short(svg: string): string {
  const rounded = (text: string) =>
    text.replace(/-?\d+\.\d{3,}/g, (number) => String(Math.round(Number(number) * 100) / 100));
  return svg.replace(/ (?:d|transform|x|y|x1|x2|y1|y2|width|height)="[^"]*"/g, rounded)
    .replace(/ (?:role|aria-\w+)="[^"]*"/g, "").replaceAll(
      'class="mark-rect',
      'shape-rendering="crispEdges" class="mark-rect',
    );
}

type Resvg = typeof import("@resvg/resvg-wasm");
interface Painter {
  readonly Resvg: Resvg["Resvg"];
  readonly fonts: readonly Uint8Array[];
}
let painter: Promise<Painter> | null = null;

function loadPainter(): Promise<Painter> {
  painter ??= (async () => {
    const { initWasm, Resvg } = await optional(() => import("@resvg/resvg-wasm"), "a PNG", RESVG);
    // Without a font it would draw no text at all, and say nothing.
    const [wasm, ...fonts] = await Promise.all(
      ["@resvg/resvg-wasm/index_bg.wasm", FONT_FILE, BOLD_FILE].map((name) =>
        optional(() => assets.file(name), "a PNG", RESVG)
      ),
    );
    await initWasm(wasm);
    return { Resvg, fonts };
  })();
  return painter;
}

/** Loads what pictures need now, so that its absence is told before anything is computed. Throws UsageError. */
export async function requireDrawing(png: boolean): Promise<void> {
  await loadVega();
  if (png) await loadPainter();
}

/** An SVG scaled to a width in px. */
export function sized(svg: string, width: number): string {
  return svg.replace(/^<svg([^>]*?) width="([\d.]+)" height="([\d.]+)"/, (_, rest: string, w: string, h: string) => {
    return `<svg${rest} width="${width}" height="${Math.round(Number(h) * width / Number(w))}"`;
  });
}

/** A PNG of `width` pixels of an SVG. Throws UsageError where a package or the font is not installed. */
export async function drawPng(svg: string, width: number): Promise<Uint8Array> {
  const { Resvg, fonts } = await loadPainter();
  const image = new Resvg(svg, {
    fitTo: { mode: "width", value: width },
    background: "#ffffff",
    font: {
      fontBuffers: [...fonts],
      defaultFontFamily: "DejaVu Sans",
      sansSerifFamily: "DejaVu Sans",
      loadSystemFonts: false,
    } as never,
  });
  try {
    return image.render().asPng();
  } finally {
    image.free();
  }
}
