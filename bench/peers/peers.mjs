/** The peers: where each one runs, what it needs, and how one measurement of it is made. Node only, no dependencies. */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import process from "node:process";

/**
 * glibc settings that keep freed memory in the heap: without them every large temporary is mapped, faulted in page by page and unmapped
 * again. Threshold and top padding alone still trim the heap, so all three are set.
 */
export const TUNED_MALLOC = {
  MALLOC_MMAP_THRESHOLD_: String(2 ** 35),
  MALLOC_TRIM_THRESHOLD_: String(2 ** 35),
  MALLOC_TOP_PAD_: String(2 ** 28),
};

const NUMPY = "apt-get install python3-numpy libopenblas0-pthread";
const TORCH = "apt-get install python3-torch libopenblas0-pthread";
const SHIPPED =
  "pip install performer-pytorch==1.1.4 (into a virtual environment that has torch; then PYTHON=that/bin/python)";
const ALL = ["positive", "hyperbolic", "softmax"];

/** `causal`: whether it has causal features; `causalRows`: the most rows worth waiting for there. */
export const PEERS = [
  { name: "numpy-fused", script: "numpy_fused.py", needs: "numpy", get: NUMPY, features: ALL, causal: true },
  { name: "torch-fused", script: "torch_fused.py", needs: "torch", get: TORCH, features: ALL, causal: true },
  { name: "torch-plain", script: "torch_plain.py", needs: "torch", get: TORCH, features: ALL, causal: false },
  {
    ...{ name: "torch-plain, malloc tuned", script: "torch_plain.py", needs: "torch", get: TORCH, features: ALL },
    ...{ causal: false, env: TUNED_MALLOC },
  },
  {
    ...{ name: "performer-pytorch", script: "performer_pytorch_peer.py", needs: "performer_pytorch", get: SHIPPED },
    ...{ features: ["positive"], causal: true, causalRows: 4096 },
  },
  {
    ...{ name: "performer-pytorch, malloc tuned", script: "performer_pytorch_peer.py", needs: "performer_pytorch" },
    ...{ get: SHIPPED, features: ["positive"], causal: true, causalRows: 4096, env: TUNED_MALLOC },
  },
];

const pythons = new Map();

/** The first interpreter that can import `module`: of $PYTHON, python3 and /usr/bin/python3. */
export function findPython(module) {
  if (!pythons.has(module)) {
    const candidates = [process.env.PYTHON, "python3", "/usr/bin/python3"].filter(Boolean);
    const found = candidates.find((python) => spawnSync(python, ["-c", `import ${module}`]).status === 0);
    pythons.set(module, found ?? null);
  }
  return pythons.get(module);
}

/** Peers that run here, and one line for every package that is missing. */
export function installedPeers() {
  const installed = PEERS.filter((peer) => findPython(peer.needs));
  const missing = new Map(PEERS.filter((peer) => !findPython(peer.needs)).map(({ needs, get }) => [needs, get]));
  return { installed, missing: [...missing].map(([module, get]) => `${module} is missing: ${get}`) };
}

/**
 * Environment of a peer. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE, which force OpenBLAS to kernels that may be slower than the machine's
 * own, are removed unless PEERS_KEEP_OPENBLAS is set. The kernel in use is part of every JSON line.
 */
function environment(extra) {
  const env = { ...process.env };
  for (const name of Object.keys(env)) if (name.startsWith("MALLOC_")) delete env[name];
  if (!env.PEERS_KEEP_OPENBLAS) {
    delete env.OPENBLAS_CORETYPE;
    delete env.OPENBLAS_L2_SIZE;
  }
  return { ...env, ...extra };
}

/** Runs a peer with the given flags and returns its JSON lines. */
export function measurePeer(peer, flags) {
  const script = fileURLToPath(new URL(peer.script, import.meta.url));
  const { status, stdout, error } = spawnSync(
    findPython(peer.needs),
    [script, "--label", peer.name, ...flags.map(String)],
    { env: environment(peer.env), encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] },
  );
  if (status !== 0) throw new Error(`${peer.name} failed: ${error?.message ?? `exit status ${status}`}`);
  return stdout.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
}

/** Rows of a Markdown table, columns padded. */
export function markdown(head, rows) {
  const all = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, i) => Math.max(3, ...all.map((row) => row[i].length)));
  const line = (row) => `| ${row.map((text, i) => text.padEnd(widths[i])).join(" | ")} |`;
  return [line(all[0]), `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`, ...all.slice(1).map(line)].join(
    "\n",
  );
}

/** 12345.6 → "12,346". */
export const whole = (value) => Math.round(value).toLocaleString("en-US");

export function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}
