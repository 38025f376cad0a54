/** The layers of ARCHITECTURE.md, no import cycles, and who may touch files and the process. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

function filesUnder(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name)).filter((name) => name.endsWith(".ts"));
}

const FILES = ["cli.ts", "mod.ts", ...filesUnder("src"), ...filesUnder("kernels")];
const TEXT = new Map(FILES.map((file) => [file, readFileSync(join(ROOT, file), "utf8")]));

/** Relative imports of a file, static and dynamic, types included. */
function importsOf(file: string): string[] {
  const specifiers = [...TEXT.get(file)!.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map((match) => match[1]);
  return specifiers.map((specifier) => relative(ROOT, normalize(join(ROOT, dirname(file), specifier))));
}

/** Static imports of values only: types are erased, and a dynamic import is how heavy parts stay out of the start. */
function staticImportsOf(file: string): string[] {
  const specifiers = [...TEXT.get(file)!.matchAll(/^(?:import|export)\b(?! type\b)[^;]*?\bfrom\s*"(\.[^"]+)"/gms)].map((
    match,
  ) => match[1]);
  return specifiers.map((specifier) => relative(ROOT, normalize(join(ROOT, dirname(file), specifier))));
}

const LAYERS: readonly RegExp[] = [
  /^kernels\/|^src\/(errors|system_errors|tensor|words|fields|version|statistics|timing|in_flight|threads)\.ts$/,
  /^src\/plots\/|^src\/(bytes|disk|disk_names|claim|processes|stream_sink|packed|partial_output|pipe_\w+|random|sobol|sobol_directions|closed_forms|predicted_error|feature_map|plan|decay|state|near_far|near_far_flops|near_far_sizes|far_state|rules_table|moments|symmetric|fitted|row_transform|sliding_window)\.ts$/,
  /^src\/(assets|projection|attention|backend|metrics|rules_plan)\.ts$/,
  /^src\/(backends|formats)\//,
  /^src\/(inputs|gaps|report|batch|warnings|check|sampled_rows|sessions|compare(_\w+)?|run(_\w+)?|near_rows|sample|row_slice|shrink|health(_\w+)?|trial|candidates|choose|tune|setting_words|centroids|fit_near_far|fit|transformed|forecast|memory|tile_store|stored_state|state_file|state_settings|state_build|rules\w*|bench(_\w+)?|drift)\.ts$|^src\/(exporters|charts|figures|help|shard)\//,
  /^src\/model\//,
  /^src\/(commands|library|repl|tour)\//,
  /^(cli|mod)\.ts$/,
];
const layerOf = (file: string) => LAYERS.findIndex((layer) => layer.test(file));

test("every file has a layer", () => {
  expect(FILES.filter((file) => layerOf(file) < 0)).toEqual([]);
});

test("imports point down the layers", () => {
  const upward = FILES.flatMap((file) => {
    return importsOf(file).filter((target) => layerOf(target) > layerOf(file)).map((target) => `${file} → ${target}`);
  });
  expect(upward).toEqual([]);
});

test("kernels import nothing from src; backends and formats do not know each other", () => {
  const forbidden = FILES.flatMap((file) => {
    const wrong = (target: string) =>
      (file.startsWith("kernels/") && target.startsWith("src/")) ||
      (file.startsWith("src/backends/") && target.startsWith("src/formats/")) ||
      (file.startsWith("src/formats/") && target.startsWith("src/backends/"));
    return importsOf(file).filter(wrong).map((target) => `${file} → ${target}`);
  });
  expect(forbidden).toEqual([]);
});

test("there are no import cycles, type imports included", () => {
  const done = new Set<string>();
  const cycles: string[] = [];
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(" → "));
    if (done.has(file) || path.includes(file)) return;
    for (const target of staticImportsOf(file)) if (TEXT.has(target)) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of FILES) visit(file, []);
  expect(cycles).toEqual([]);
});

test("the start loads no backend, no parser and no run loop", () => {
  const loaded = new Set<string>();
  const visit = (file: string): void => {
    if (loaded.has(file)) return;
    loaded.add(file);
    staticImportsOf(file).filter((target) => TEXT.has(target)).forEach(visit);
  };
  visit("cli.ts");
  expect([...loaded].filter((file) => /^src\/(backends|exporters|charts|figures|tour|run|check)|^kernels/.test(file)))
    .toEqual([]);
  const packages = [...loaded].filter((file) => /^import\b[^;]*from "(?!\.|node:)/m.test(TEXT.get(file)!));
  expect(packages).toEqual([]);
});

describe("only one place", () => {
  const matching = (pattern: RegExp) => FILES.filter((file) => pattern.test(TEXT.get(file)!));

  test("bytes.ts, disk.ts and disk_names.ts touch files", () => {
    const allowed = ["src/bytes.ts", "src/disk.ts", "src/disk_names.ts", "src/backends/webgpu_swiftshader.ts"]; // the last unpacks a driver
    expect(matching(/"node:fs(\/promises)?"/).filter((file) => !allowed.includes(file))).toEqual([]);
  });

  test("assets.ts and threads.ts ask where the code is: a bundle and a binary put it elsewhere", () => {
    expect(matching(/\bimport\.meta\b|\bcreateRequire\b/).sort()).toEqual(["src/assets.ts", "src/threads.ts"]);
  });

  test("cli.ts touches the process", () => {
    const pattern = /"node:process"|\bprocess\.(exit|argv|stdout|stderr|stdin|on)\b/;
    expect(matching(pattern)).toEqual(["cli.ts"]);
  });
});

test("files stay small enough to read", () => {
  const long = FILES.filter((file) => TEXT.get(file)!.trimEnd().split("\n").length > 400);
  expect(long).toEqual([]);
  expect(statSync(join(ROOT, "cli.ts")).size).toBeLessThan(60 * 120);
});

test("the version is the package's", () => {
  const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
  expect(TEXT.get("src/version.ts")).toContain(`"${version}"`);
});
