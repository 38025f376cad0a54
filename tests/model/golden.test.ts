/**
 * Whole models of unmodified performer-pytorch 1.1.4 (tests/golden/lm, a folder is a case): logits and encodings from the checkpoint
 * and its configuration alone, and proof that the bound sees wrong rules.
 */
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Backend } from "../../src/backend.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { parseConfiguration } from "../../src/model/arguments.ts";
import { forward, type ForwardOptions } from "../../src/model/forward.ts";
import { recognise } from "../../src/model/recognise.ts";
import { prepareRuled, type RulesName } from "../../src/rules.ts";
import { describeBackends } from "../conformance/backends.ts";

const CASES = fileURLToPath(new URL("../golden/lm/", import.meta.url));
const NAMES = readdirSync(CASES);

async function array(name: string, file: string) {
  await using container = await openContainer(`${CASES}${name}/${file}.npy`);
  return await container.readAll(undefined, "f64");
}

async function describeCase(name: string, more: Record<string, unknown> = {}) {
  const container = await openContainer(`${CASES}${name}/model.pt`);
  const configuration = parseConfiguration("config.json", readFileSync(`${CASES}${name}/config.json`, "utf8"));
  const values = { ...configuration.values, ...more };
  return {
    container,
    description: recognise(container.path, container.members, { configuration: { ...configuration, values } }),
  };
}

/** Largest distance from the stored outputs. */
async function distance(
  backend: Backend,
  name: string,
  file: "logits" | "encodings" | "logits_local_attention_1.4.4",
  { configuration, masked = true, ...changes }: {
    configuration?: Record<string, unknown>;
    masked?: boolean;
    rules?: RulesName;
    numerics?: ForwardOptions["numerics"];
    tileRows?: number;
  } = {},
): Promise<number> {
  const { container, description } = await describeCase(name, configuration);
  await using _container = container;
  const [tokens, wanted] = [await array(name, "tokens"), await array(name, file)];
  const mask = masked && existsSync(`${CASES}${name}/mask.npy`) ? await array(name, "mask") : null;
  const [items, length] = tokens.shape;
  const of = <T>(all: ArrayLike<number>, make: (part: number[]) => T, item: number) =>
    make(Array.from({ length }, (_, i) => all[item * length + i]));
  let [worst, seen] = [0, 0];
  await forward({
    container,
    layout: description.layout!,
    rules: description.rules,
    ...changes,
    backend,
    sequences: Array.from({ length: items }, (_, item) => ({
      length,
      rows: null,
      tokens: of(tokens.data, Int32Array.from.bind(Int32Array) as (part: number[]) => Int32Array, item),
      mask: mask && of(mask.data, (part) => Float64Array.from(part), item),
    })),
    encodings: file === "encodings",
    input: "tokens.npy",
    write: async (item, { start, cols, rows, data }) => {
      for (let i = 0; i < rows * cols; i++) {
        worst = Math.max(worst, Math.abs(data[i] - wanted.data[(item * length + start) * cols + i]));
      }
      seen += rows * cols;
    },
  });
  expect(seen).toBe(wanted.data.length);
  return worst;
}

type Prepare = NonNullable<NonNullable<ForwardOptions["numerics"]>["prepare"]>;

/** The backend with gelu by its tanh approximation. */
function withTanh(backend: Backend): Backend {
  const gelu = (u: number) => 0.5 * u * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (u + 0.044715 * u ** 3)));
  const prepareLinear: Backend["prepareLinear"] = async (plan) => {
    const linear = await backend.prepareLinear(plan.activation === "gelu" ? { ...plan, activation: "none" } : plan);
    if (plan.activation !== "gelu") return linear;
    return {
      async run(x, into) {
        const tile = await linear.run(x, into);
        for (let i = 0; i < tile.rows * tile.cols; i++) tile.data[i] = gelu(tile.data[i]);
        return tile;
      },
      [Symbol.asyncDispose]: () => linear[Symbol.asyncDispose](),
    };
  };
  return {
    name: backend.name,
    device: backend.device,
    limits: backend.limits,
    prepare: (plan) => backend.prepare(plan),
    prepareExact: (plan) => backend.prepareExact(plan),
    prepareLinear,
    [Symbol.asyncDispose]: async () => {},
  };
}

describeBackends("PerformerLM", (backend, slow) => {
  const quick = backend.name === "scalar" || backend.name === "wasm" || backend.name === "onnx";
  for (const name of slow ? [] : quick ? NAMES : ["noproj", "rotary_glu_scalenorm_causal"]) {
    test(`${name}: logits and encodings of performer-pytorch`, async () => {
      const bound = name === "tied_shift_causal" ? 1e-4 : 1e-5; // its logits are ten times larger
      expect(await distance(backend, name, "logits")).toBeLessThan(bound);
      expect(await distance(backend, name, "encodings", { tileRows: 23 })).toBeLessThan(bound);
    });
  }
  if (quick) {
    test("local heads of local-attention 1.4.4, where the configuration says so", async () => {
      const configuration = { local_attention_version: "1.4.4" };
      const name = "local_bidirectional_autopad";
      expect(await distance(backend, name, "logits_local_attention_1.4.4", { configuration })).toBeLessThan(1e-5);
      expect(await distance(backend, name, "logits", { configuration })).toBeGreaterThan(1e-2);
    });
  }
  if (slow) {
    test.skip("whole models take minutes on a software GPU", () => {});
    return;
  }
  if (backend.name !== "scalar") return;

  test("the bound sees wrong rules: ε, key maximum, rotation, ε of LayerNorm, scale, activation, mask", async () => {
    const name = "plain_legacy_pickle";
    const away = (changes: Parameters<typeof distance>[3]) => distance(backend, name, "logits", changes);
    expect(await away({ rules: "exact" })).toBeGreaterThan(1e-3);
    expect(await away({ rules: "google" })).toBeGreaterThan(1e-3);
    expect(await away({ rules: "lucidrains-global" })).toBeGreaterThan(1e-5);
    expect(await away({ numerics: { rotation: () => null } })).toBeGreaterThan(1e-3);
    const norm = { norm: <T extends { kind: string }>(given: T): T => ({ ...given, epsilon: 1e-6 }) };
    expect(await away({ numerics: norm })).toBeGreaterThan(5e-6); // right rules are within 6e-7 here
    const prepare: Prepare = (on, plan) => {
      const { projection, headDim } = plan;
      return prepareRuled(on, { ...plan, projection: projection.map((w) => w * headDim ** 0.25) });
    };
    expect(await away({ numerics: { prepare } })).toBeGreaterThan(1e-3);
    expect(await distance(withTanh(backend), name, "logits")).toBeGreaterThan(2e-5);
    expect(await distance(backend, "masked_batch2", "logits", { masked: false })).toBeGreaterThan(1e-3);
  });
});

test("what the keys tell: family, versions and rules of every stored checkpoint", async () => {
  for (const name of NAMES) {
    const { container, description } = await describeCase(name);
    await using _container = container;
    expect([name, description.family, description.rules]).toEqual([name, "performer-lm", "lucidrains"]);
    expect(description.versions!.text).toBe(name === "tied_shift_causal" ? "1.1.0 … 1.1.4" : "1.0.9 … 1.1.4");
    expect([name, description.unknown, description.extra]).toEqual([name, [], []]);
  }
});
