/** A page for every backend. */
import { BACKEND_NAMES, type BackendName } from "../backend.ts";
import type { Block, Topic } from "./topic.ts";

const PAGES: Readonly<
  Record<
    BackendName,
    { readonly summary: string; readonly body: readonly Block[]; readonly variants: readonly string[] }
  >
> = {
  webgpu: {
    summary: "graphics adapters through npm webgpu (Vulkan, Metal, Direct3D 12): float32, state in float64",
    body: [
      "Fused kernels: features never reach the memory of the device. A software adapter is taken only when it is asked for by name, as webgpu or " +
      "webgpu:swiftshader.",
    ],
    variants: ["webgpu:swiftshader"],
  },
  onnx: {
    summary: "native products of onnxruntime-node, a package you install yourself: float32, state in float64",
    body: [
      "npm install onnxruntime-node adds it. auto takes the faster of it and wasm by a short timing that is kept, and leaves it alone where there is " +
      "little work, because loading it takes a while. It has no kernels for near keys and far fields.",
    ],
    variants: [],
  },
  wasm: {
    summary: "SIMD kernels on every core over shared memory, no native code: float32, state in float64",
    body: [
      "--threads N sets how many cores, --profile measures its stages. wasm:relaxed and wasm:simd choose the build.",
    ],
    variants: ["wasm:simd --threads 2"],
  },
  gpujs: {
    summary: "gpu.js in a named mode, gpujs:webasm or gpujs:cpu: float32, state in float64",
    body: ["It has no kernels for near keys and far fields; those go to another backend of the list."],
    variants: ["gpujs:cpu"],
  },
  scalar: {
    summary: "plain JavaScript in float64: the reference that every other backend is tested against",
    body: ["Written to be read, one thread. It can write float64, and is the only one with the feature map hybrid."],
    variants: [],
  },
};

export const BACKEND_TOPICS: readonly Topic[] = BACKEND_NAMES.map((name) => ({
  name,
  group: "backends",
  summary: PAGES[name].summary,
  body: PAGES[name].body,
  examples: [name, ...PAGES[name].variants].map((chosen) => `performer attend qkv.npz --backend ${chosen}`),
  see: ["backend", ...BACKEND_NAMES.filter((other) => other !== name)],
}));
