/** Finds a WebGPU adapter through Dawn (npm `webgpu`): hardware first, software only when it was asked for. */
import { assets } from "../assets.ts";
import { UnsupportedError, UsageError } from "../errors.ts";
import type { OpenOptions } from "../backend.ts";
import { loadVulkan } from "./webgpu_ffi.ts";
import { offerSwiftShader } from "./webgpu_swiftshader.ts";

/** The part of npm `webgpu` that is used. */
interface Dawn {
  create(options: string[]): GPU;
  readonly globals: Record<string, unknown>;
}

/** Dawn's roots, kept for the life of the process: Bun segfaults when one is collected while its device lives. */
const roots: GPU[] = [];
let swiftShaderRoot: GPU | null = null;
let hardwareRoot: GPU | null = null;

/** What a runtime says that forbids native code (or some of it: Deno's `--allow-ffi=./node_modules/webgpu`). */
const DENIED = /permission|NotCapable|--allow/i;

async function loadDawn(): Promise<Dawn> {
  try {
    return (await assets.dawn()) as Dawn;
  } catch (error) {
    const message = (error as Error).message.split("\n")[0];
    const way = DENIED.test(message) ? "give --allow-ffi" : assets.dawnRemedy;
    throw new UnsupportedError("webgpu", `Dawn cannot be loaded: ${message}; ${way}`);
  }
}

/**
 * The kernels write all workgroup memory before they read it. Dawn would clear it first, which SwiftShader's compiler unrolls:
 * 10 to 25 seconds per kernel instead of 0.5.
 */
const DAWN_FEATURES = "enable-dawn-features=disable_workgroup_init";

/** A root that this module keeps referenced. `options` are Dawn's, such as `backend=null`. */
export async function createRoot(options: string[] = []): Promise<GPU> {
  const root = (await loadDawn()).create([DAWN_FEATURES, ...options]);
  roots.push(root);
  return root;
}

const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|microsoft basic render|\bcpu\b|software/i;

/** Does this adapter run on the CPU? */
export function isSoftware(info: GPUAdapterInfo): boolean {
  const text = [info.vendor, info.architecture, info.device, info.description].join(" ");
  return info.isFallbackAdapter === true || SOFTWARE.test(text);
}

const request = (root: GPU) => root.requestAdapter({ powerPreference: "high-performance" });

async function hardwareAdapter(): Promise<GPUAdapter | null> {
  await loadDawn();
  if (!hardwareRoot) {
    // Dawn prints a warning when the loader is missing; asking first keeps the terminal clean.
    const missing = process.platform === "linux" ? await loadVulkan("libvulkan.so.1") : null;
    if (missing !== null && !DENIED.test(missing)) return null;
    hardwareRoot = await createRoot();
  }
  return request(hardwareRoot);
}

async function swiftShaderAdapter(): Promise<GPUAdapter | null> {
  await loadDawn();
  if (!swiftShaderRoot) {
    await offerSwiftShader();
    swiftShaderRoot = await createRoot();
  }
  return request(swiftShaderRoot);
}

/** The adapter that `options` allow, or UnsupportedError. */
export async function findAdapter(options: OpenOptions): Promise<GPUAdapter> {
  const { variant, named } = options;
  if (variant !== undefined && variant !== "swiftshader") {
    throw new UsageError(`Unknown variant "webgpu:${variant}", expected webgpu or webgpu:swiftshader`);
  }
  const first = variant === "swiftshader" ? null : await hardwareAdapter();
  if (first && (named || !isSoftware(first.info))) return first;
  if (!named) {
    throw new UnsupportedError(
      "webgpu",
      first
        ? `only a software adapter (${describe(first.info)}) was found; ask for it with --backend webgpu`
        : "no graphics adapter was found; a software adapter can be asked for with --backend webgpu",
    );
  }
  const second = await swiftShaderAdapter();
  if (second) return second;
  throw new UnsupportedError("webgpu", "no graphics adapter was found, and SwiftShader did not start");
}

/** What runs, in a few words. */
export function describe(info: GPUAdapterInfo): string {
  const name = info.description || [info.vendor, info.architecture || info.device].filter(Boolean).join(" ");
  return (name || "unknown adapter") + (isSoftware(info) ? ", software" : "");
}
