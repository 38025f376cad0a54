/**
 * BERT, RoBERTa, GPT-2 and Llama-style models with exact attention, against outputs computed by make.py from the published
 * architectures; what their tensors and configurations tell; and proof that the bound sees wrong rules.
 */
import { describe, expect, test } from "bun:test";
import type { Backend } from "../../src/backend.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { parseConfiguration } from "../../src/model/arguments.ts";
import type { ModelLayout, TensorHeader } from "../../src/model/description.ts";
import { forward, type ForwardOptions } from "../../src/model/forward.ts";
import { recognise } from "../../src/model/recognise.ts";
import { describeBackends } from "../conformance/backends.ts";
import { configurationOf, fixture, numbers, openModel, TRANSFORMERS } from "./transformers.ts";

interface Changes {
  readonly layout?: Partial<ModelLayout>;
  readonly numerics?: ForwardOptions["numerics"];
  readonly tileRows?: number;
  readonly masked?: boolean;
}

/** Largest distance from the stored outputs, over the largest of them. */
async function distance(
  backend: Backend,
  name: string,
  file: "logits" | "encodings",
  { layout, masked = true, ...changes }: Changes = {},
): Promise<number> {
  await using model = await openModel(name);
  const wanted = await numbers(fixture(name, `${file}.npy`));
  const length = model.sequences[0].length;
  let [worst, largest, seen] = [0, 0, 0];
  await forward({
    ...model,
    ...changes,
    layout: { ...model.layout, ...layout },
    sequences: masked ? model.sequences : model.sequences.map((sequence) => ({ ...sequence, mask: null })),
    rules: model.description.rules,
    backend,
    encodings: file === "encodings",
    write: async (item, { start, cols, rows, data }) => {
      for (let i = 0; i < rows * cols; i++) {
        const value = wanted.data[(item * length + start) * cols + i];
        worst = Math.max(worst, Math.abs(data[i] - value));
        largest = Math.max(largest, Math.abs(value));
      }
      seen += rows * cols;
    },
  });
  expect(seen).toBe(wanted.data.length);
  return worst / largest;
}

describeBackends("softmax transformers", (backend, slow) => {
  const quick = backend.name === "scalar" || backend.name === "wasm" || backend.name === "onnx";
  const bound = backend.limits.precision === "f64" ? 1e-9 : 1e-5;
  for (const name of slow ? [] : quick ? TRANSFORMERS : (["llama"] as const)) {
    test(`${name}: logits and encodings of the published architecture`, async () => {
      expect(await distance(backend, name, "logits")).toBeLessThan(bound);
      expect(await distance(backend, name, "encodings", { tileRows: 7 })).toBeLessThan(bound);
    });
  }
  if (backend.name !== "scalar") {
    if (slow) test.skip("whole models take minutes on a software GPU", () => {});
    return;
  }

  test("the bound sees wrong rules: rotation, ε, activation, positions, mask, causality", async () => {
    const away = (name: string, changes: Changes) => distance(backend, name, "logits", changes);
    expect(await away("llama", { numerics: { rotation: () => null } })).toBeGreaterThan(1e-3);
    expect(await away("qwen2", { layout: { rotary: { kind: "half-split", theta: 10000 } } })).toBeGreaterThan(1e-3);
    const epsilon = { norm: <T extends { kind: string }>(norm: T): T => ({ ...norm, epsilon: 1e-6 }) };
    for (const name of ["gpt2", "llama", "roberta"]) {
      expect(await away(name, { numerics: epsilon })).toBeGreaterThan(1e-7);
    }
    expect(await away("bert", { masked: false })).toBeGreaterThan(1e-3);
    expect(await away("gpt2", { layout: { causal: false } })).toBeGreaterThan(1e-3);
    await using roberta = await openModel("roberta");
    const plain = { ...roberta.layout.positions, kind: "absolute" } as ModelLayout["positions"];
    expect(await away("roberta", { layout: { positions: plain } })).toBeGreaterThan(1e-3);
    for (const name of ["bert", "gpt2", "llama"] as const) {
      await using model = await openModel(name);
      const layers = model.layout.layers.map(({ attention, feedForward }) => ({
        attention,
        feedForward: { ...feedForward!, activation: "relu" as const },
      }));
      expect(await away(name, { layout: { layers } })).toBeGreaterThan(1e-3);
    }
    await using gpt2 = await openModel("gpt2");
    const exact = gpt2.layout.layers.map(({ attention, feedForward }) => ({
      attention,
      feedForward: { ...feedForward!, activation: "gelu" as const },
    }));
    expect(await away("gpt2", { layout: { layers: exact } })).toBeGreaterThan(1e-6); // erf instead of tanh
  });
});

async function headersOf(name: string): Promise<TensorHeader[]> {
  await using container = await openContainer(fixture(name, "model.safetensors"));
  return container.members.map(({ name, dtype, shape }) => ({ name, dtype, shape }));
}

const renamed = (headers: readonly TensorHeader[], change: (name: string) => string): TensorHeader[] =>
  headers.map((header) => ({ ...header, name: change(header.name) }));

describe("what tensors and configurations tell", () => {
  test.each([...TRANSFORMERS])(
    "%s: everything is asked for, and a config.json of Hugging Face is taken as it is",
    async (name) => {
      const found = recognise(name, await headersOf(name), { configuration: configurationOf(name) });
      expect([found.family, found.extra, found.unknown, found.reason]).toEqual([
        name === "qwen2" ? "llama" : name,
        [],
        [],
        null,
      ]);
      expect(found.layout!.kernel).toBe("exact-softmax");
      expect(
        found.assumed.filter(({ from }) => from === "default").map(({ argument }) => argument).filter((argument) => {
          return Object.hasOwn(configurationOf(name).values, argument);
        }),
      ).toEqual([]);
    },
  );

  test("heads of 64 columns are assumed, others must be told; Llama's always", async () => {
    const gpt2 = recognise("gpt2", await headersOf("gpt2"));
    expect(gpt2.assumed).toContainEqual(expect.objectContaining({ argument: "n_head", value: 1, from: "default" }));
    expect(recognise("bert", await headersOf("bert")).unknown).toEqual([
      expect.stringContaining("num_attention_heads"),
    ]);
    expect(recognise("llama", await headersOf("llama")).unknown).toEqual([
      expect.stringContaining("num_attention_heads"),
    ]);
    const configuration = { path: "own.json", values: { head_dim: 16 } };
    const { layout } = recognise("llama", await headersOf("llama"), { configuration });
    expect(layout!.layers[0].attention).toMatchObject({ heads: 2, kvHeads: 1, headDim: 16 });
  });

  test("with and without the names of wrappers and base models", async () => {
    const bare: Record<string, RegExp> = { bert: /^bert\./, roberta: /^roberta\./, llama: /^model\./ };
    for (const [name, base] of Object.entries(bare)) {
      const headers = await headersOf(name);
      const configuration = configurationOf(name);
      expect(recognise(name, renamed(headers, (old) => `module.${old}`), { configuration }).prefix).toBe("module.");
      const alone = renamed(headers.filter((header) => base.test(header.name)), (old) => old.replace(base, ""));
      const { family, layout } = recognise(name, alone, { configuration });
      expect<string[]>([family, layout!.output.kind]).toEqual([name, "none"]);
    }
    const wrapped = renamed(await headersOf("gpt2"), (old) => `transformer.${old}`);
    const { prefix, layout } = recognise("gpt2", wrapped, { configuration: configurationOf("gpt2") });
    expect([prefix, layout!.output.kind, layout!.embedding!.table]).toEqual(["", "tied", "transformer.wte.weight"]);
  });

  test("a base model without a name of its own: one token type is RoBERTa's, unless the configuration says otherwise", async () => {
    const strip = renamed((await headersOf("roberta")).filter(({ name }) => name.startsWith("roberta.")), (name) => {
      return name.replace("roberta.", "");
    });
    const told = (values: Record<string, unknown>) =>
      recognise("base", strip, { configuration: { path: "c.json", values: { num_attention_heads: 2, ...values } } })
        .family;
    expect([told({}), told({ model_type: "bert" })]).toEqual(["roberta", "bert"]);
  });

  test("gamma and beta of the first BERT checkpoints", async () => {
    const old = renamed(await headersOf("bert"), (name) => {
      return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
    });
    const { layout, extra } = recognise("bert", old, { configuration: configurationOf("bert") });
    expect([layout!.embedding!.norm, extra]).toEqual([
      expect.objectContaining({ bias: "bert.embeddings.LayerNorm.beta" }),
      [],
    ]);
  });

  test("what would change the outputs and is not run here is refused", async () => {
    const refused = async (name: string, more: Record<string, unknown>) => {
      const headers = await headersOf(name);
      return () => recognise(name, headers, { configuration: configurationOf(name, more) });
    };
    expect(await refused("bert", { position_embedding_type: "relative_key" })).toThrow(/relative_key.*absolute/);
    expect(await refused("bert", { num_attention_heads: 5 })).toThrow(/5 heads.*32/);
    expect(await refused("bert", { vocab_size: 60 })).toThrow(/vocab_size/);
    expect(await refused("bert", { hidden_act: "mish" })).toThrow(/mish/);
    expect(await refused("gpt2", { scale_attn_by_inverse_layer_idx: true })).toThrow(/scale_attn_by_inverse_layer_idx/);
    expect(await refused("llama", { rope_scaling: { rope_type: "llama3", factor: 8 } })).toThrow(/llama3/);
    expect(await refused("llama", { num_attention_heads: 3 })).toThrow(/do not fit/);
    const more = [...await headersOf("llama"), {
      name: "model.layers.1.self_attn.q_norm.weight",
      dtype: "f32",
      shape: [8],
    }];
    const { layout, reason } = recognise("qwen3", more, { configuration: configurationOf("llama") });
    expect([layout, reason]).toEqual([null, expect.stringContaining("q_norm")]);
    const windowed = recognise("mistral", await headersOf("llama"), {
      configuration: configurationOf("llama", { sliding_window: 16 }),
    });
    expect(windowed.layout!.maxLength).toBe(16);
    expect(
      recognise("llama 3", await headersOf("llama"), {
        configuration: configurationOf("llama", {
          rope_theta: null,
          rope_parameters: { rope_type: "default", rope_theta: 5e5 },
        }),
      }).layout!.rotary,
    ).toEqual({ kind: "half-split", theta: 5e5 });
  });

  test("a configuration of ours is checked for slips, one of Hugging Face is not, and other JSON is none", async () => {
    const headers = await headersOf("gpt2");
    const read = (value: unknown) => parseConfiguration("c.json", JSON.stringify(value));
    expect(() => recognise("gpt2", headers, { configuration: read({ model: { n_heads: 4 } }) })).toThrow(/n_head"/);
    expect(recognise("gpt2", headers, { configuration: read({ model_type: "gpt2", n_heads: 4 }) }).family).toBe("gpt2");
    expect(() => read({ n_head: 4 })).toThrow(/model_type/);
  });
});
