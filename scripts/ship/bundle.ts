/** What both builds share: the program's modules with one of them exchanged, and the licences of what is bundled with it. */
import type { BuildConfig, BunPlugin } from "bun";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT: string = fileURLToPath(new URL("../..", import.meta.url));

/** How the program is shipped. */
type Form = "package" | "binary";

/** Puts scripts/ship/`form`_assets.ts in the place of src/assets.ts, and so for threads.ts. The first line of cli.ts would make the bundler write for Bun alone. */
function withAssets(form: Form): BunPlugin {
  return {
    name: "assets",
    setup(build) {
      build.onResolve({ filter: /\/(assets|threads)\.ts$/ }, ({ path }) => {
        return { path: join(ROOT, "scripts/ship", `${form}_${path.split("/").at(-1)}`) };
      });
      build.onLoad({ filter: /\/cli\.ts$/ }, ({ path }) => {
        return { contents: readFileSync(path, "utf8").replace(/^#!.*/, ""), loader: "ts" };
      });
    },
  };
}

/**
 * gpu.js asks for npm `gl`, which loads on neither Bun nor Deno, and goes without it when that fails. Left outside, a binary would look
 * for it in the folder it is used in, and run what it finds.
 */
const withoutGl: BunPlugin = {
  name: "gl",
  setup(build) {
    build.onResolve({ filter: /^gl$/ }, () => ({ path: "gl", namespace: "none" }));
    build.onLoad(
      { filter: /.*/, namespace: "none" },
      () => ({ contents: 'throw new Error("gl is left out");', loader: "js" }),
    );
  },
};

/** Bundles the program; throws with the bundler's words. Returns the paths of all modules that went in, relative to ROOT. */
export async function bundle(form: Form, config: BuildConfig): Promise<string[]> {
  const { plugins = [], ...rest } = config;
  const result = await Bun.build({
    root: ROOT,
    metafile: true,
    ...rest,
    plugins: [withAssets(form), withoutGl, ...plugins],
  });
  return Object.keys(result.metafile!.inputs);
}

/** Names and licences of the packages that `modules` come from. */
export function licencesOf(modules: readonly string[]): string {
  const names = new Set(modules.flatMap((path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []));
  const texts = [...names].sort().map((name) => {
    const folder = join(ROOT, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((file) => /^licen[cs]e/i.test(file));
    const text = file && existsSync(join(folder, file)) ? readFileSync(join(folder, file), "utf8").trim() : "";
    return `${name} ${version}, ${license}\n\n${text}`;
  });
  return `Software that is bundled with performer\n\n${texts.join(`\n\n${"-".repeat(80)}\n\n`)}\n`;
}
