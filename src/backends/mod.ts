/** The backends, in the order `auto` tries them. Each is opened, not detected; its code is loaded only when it is tried. */
import type { Backend, BackendName, Driver, OpenOptions } from "../backend.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import { nearest } from "../words.ts";

/** Adding a backend is a file and its line here. */
export const CANDIDATES: readonly { name: BackendName; load: () => Promise<Driver> }[] = [
  { name: "webgpu", load: async () => (await import("./webgpu.ts")).webgpu },
  { name: "onnx", load: async () => (await import("./onnx.ts")).onnx },
  { name: "wasm", load: async () => (await import("./wasm.ts")).wasm },
  { name: "gpujs", load: async () => (await import("./gpujs.ts")).gpujs },
  { name: "scalar", load: async () => (await import("./scalar.ts")).scalar },
];

/** One entry of `--backend`. */
export interface Wish {
  readonly name: BackendName;
  /** After a colon: `gpujs:cpu`. */
  readonly variant?: string;
  /** Named by the user, not by `auto`. */
  readonly named: boolean;
}

/** Parses "auto" or "webgpu,gpujs:cpu,scalar"; throws UsageError for unknown names. */
export function parseBackendList(text: string): Wish[] {
  const all = CANDIDATES.map(({ name }) => name);
  return text.split(",").map((part) => part.trim()).flatMap((part): Wish[] => {
    if (part === "auto") return all.map((name) => ({ name, named: false }));
    const [name, variant] = part.split(":", 2);
    const found = all.find((candidate) => candidate === name);
    if (!found) {
      const near = nearest(name, [...all, "auto"]);
      const hint = near ? `did you mean ${near}? ` : "";
      throw new UsageError(`Cannot use --backend ${part}: ${hint}expected auto or a list of ${all.join(", ")}`);
    }
    return [{ name: found, variant, named: true }];
  });
}

/**
 * What every backend may be told, where speeds are kept between runs (a file; null: nowhere), and how many floating-point operations
 * are ahead, where that is known.
 */
export type OpenSettings = Pick<OpenOptions, "threads" | "profile" | "eager"> & {
  readonly speeds?: string | null;
  readonly work?: number;
  /** Only backends with kernels for near keys and far fields will do. */
  readonly nearFar?: boolean;
  /** Throws UnsupportedError where a backend, once open, will not do: the next is tried. */
  readonly accept?: (backend: Backend) => void;
  /** Only backends with kernels for hybrid features will do. */
  readonly hybrid?: boolean;
};

/** `auto` does not load onnxruntime for less: that takes 0.25 s, in which our own threads do as much. */
const LEAST_ONNX_WORK = 1e10;

/** Backends with kernels for near keys and far fields. */
const NEAR_FAR: readonly BackendName[] = ["webgpu", "wasm", "scalar"];
/** Why a backend refuses near keys and far fields. */
export const NO_NEAR_FAR = `it has no kernels for near keys and far fields; ${NEAR_FAR.join(", ")} have`;

/** Why backends other than `scalar` refuse the hybrid map. */
export const NO_HYBRID = "it has no kernels for hybrid features; scalar has";

/** Opens the first that can be. Only UnsupportedError means "try the next"; when none is left, the last one escapes. */
export async function openFirst(
  wishes: readonly Wish[],
  { speeds = null, work = Infinity, nearFar = false, accept, hybrid = false, ...options }: OpenSettings = {},
): Promise<{ backend: Backend; refused: { name: string; reason: string }[] }> {
  const refused: { name: string; reason: string }[] = [];
  let last: unknown;
  for (const { name, variant, named } of wishes) {
    if (!named && name === "onnx" && work < LEAST_ONNX_WORK) {
      refused.push({
        name,
        reason: "this work is done before its package is loaded; --backend onnx loads it all the same",
      });
      continue;
    }
    if (!named && nearFar && !NEAR_FAR.includes(name)) {
      refused.push({ name, reason: NO_NEAR_FAR });
      continue;
    }
    if (hybrid && name !== "scalar") {
      last = new UnsupportedError(name, NO_HYBRID);
      refused.push({ name, reason: NO_HYBRID });
      continue;
    }
    const driver = await CANDIDATES.find((candidate) => candidate.name === name)!.load();
    try {
      const backend = await driver.open({ ...options, variant, named });
      try {
        if (nearFar && !backend.prepareNearFar) throw new UnsupportedError(name, NO_NEAR_FAR);
        accept?.(backend);
      } catch (error) {
        await backend[Symbol.asyncDispose]();
        throw error;
      }
      if (named || name !== "onnx") return { backend, refused };
      const chosen = await orWasm(backend, options, speeds);
      if (chosen.reason) refused.push({ name, reason: chosen.reason });
      return { backend: chosen.backend, refused };
    } catch (error) {
      if (!(error instanceof UnsupportedError)) throw error;
      refused.push({ name: variant ? `${name}:${variant}` : name, reason: error.reason });
      last = error;
    }
  }
  throw last;
}

/** `auto` takes the faster of native products and our own. */
async function orWasm(onnx: Backend, options: OpenSettings, speeds: string | null) {
  const { fasterOf, SpeedCache } = await import("./speed.ts");
  const { wasm } = await import("./wasm.ts");
  return await fasterOf(onnx, () => wasm.open({ ...options, named: false }), new SpeedCache(speeds, options.threads));
}
