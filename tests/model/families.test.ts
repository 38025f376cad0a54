/** Relatives of PerformerLM by their key layouts alone: what `inspect` calls them, and damage that must be named. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { inspectModel, modelWords } from "../../src/commands/inspect_model.ts";
import { describeFile } from "../../src/formats/mod.ts";
import { safetensors } from "../formats/fuzz/mutate.ts";
import { folder } from "../formats/support.ts";

type Shapes = Record<string, readonly number[]>;
const [DIM, INNER, HEAD, M, TOKENS, LENGTH] = [12, 8, 4, 10, 7, 9];

const dense = (name: string, outputs: number, inputs: number, bias = true): Shapes => ({
  [`${name}.weight`]: [outputs, inputs],
  ...(bias ? { [`${name}.bias`]: [outputs] } : {}),
});
const norm = (name: string): Shapes => ({ [`${name}.weight`]: [DIM], [`${name}.bias`]: [DIM] });

/** One SelfAttention. */
const attention = (start: string, bias: boolean): Shapes => ({
  [`${start}fast_attention.projection_matrix`]: [M, HEAD],
  ...Object.assign({}, ...["to_q", "to_k", "to_v"].map((name) => dense(start + name, INNER, DIM, bias))),
  ...dense(`${start}to_out`, DIM, INNER, true),
});

/** One layer of a Performer under `net`. */
const layer = (net: string, i = 0, bias = true): Shapes => ({
  ...norm(`${net}layers.${i}.0.norm`),
  ...attention(`${net}layers.${i}.0.fn.`, bias),
  ...norm(`${net}layers.${i}.1.norm`),
  ...dense(`${net}layers.${i}.1.fn.fn.w1`, 4 * DIM, DIM),
  ...dense(`${net}layers.${i}.1.fn.fn.w2`, DIM, 4 * DIM),
});

const lm = (start: string, ...layers: number[]): Shapes => ({
  [`${start}token_emb.weight`]: [TOKENS, DIM],
  [`${start}pos_emb.emb`]: [LENGTH, DIM],
  [`${start}layer_pos_emb.emb`]: [LENGTH, HEAD],
  ...Object.assign({}, ...layers.map((i) => layer(`${start}performer.net.`, i, false))),
  [`${start}performer.proj_updater.calls_since_last_redraw`]: [],
  ...norm(`${start}norm`),
  ...dense(`${start}to_out`, TOKENS, DIM),
});

/** scBERT, pretrained: a gene2vec table in float64, which is what tells it. */
const scbert: Shapes = {
  "token_emb.weight": [TOKENS, DIM],
  "pos_emb.emb.weight": [LENGTH, DIM],
  "performer.calls_since_last_redraw": [],
  ...layer("performer.net.", 0, false),
  ...norm("norm"),
  ...dense("to_out", TOKENS, DIM),
};

function molformer(
  layers: string,
  names: { qkv: string[]; features: string; out: string; norms: string[]; first: string; second: string },
): Shapes {
  const start = `${layers}0.`;
  return {
    ...Object.assign({}, ...[...names.qkv, names.out].map((name) => dense(start + name, DIM, DIM))),
    [start + names.features]: [HEAD, M],
    ...Object.assign({}, ...names.norms.map((name) => norm(start + name))),
    ...dense(start + names.first, DIM, DIM),
    ...dense(start + names.second, DIM, DIM),
  };
}

const hugging: Shapes = {
  "molformer.embeddings.word_embeddings.weight": [TOKENS, DIM],
  ...molformer("molformer.encoder.layer.", {
    qkv: ["query", "key", "value"].map((name) => `attention.self.${name}`),
    features: "attention.self.feature_map.weight",
    out: "attention.output.dense",
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    first: "intermediate.dense",
    second: "output.dense",
  }),
  ...norm("molformer.LayerNorm"),
};

const ibm: Shapes = {
  "tok_emb.weight": [TOKENS, DIM],
  ...molformer("blocks.layers.", {
    qkv: ["query", "key", "value"].map((name) => `attention.${name}_projection`),
    features: "attention.inner_attention.feature_map.omega",
    out: "attention.out_projection",
    norms: ["norm1", "norm2"],
    first: "linear1",
    second: "linear2",
  }),
  ...norm("blocks.norm"),
};

const crossing: Shapes = { ...lm("enc.", 0), ...lm("dec.net.", 0, 1) };

/** What it is, its tensors, and the family and rules that `inspect` gives; the float64 ones by name. */
const RELATIVES: readonly [string, Shapes, string, string][] = [
  ["PerformerLM", lm("", 0, 1), "performer-lm", "lucidrains"],
  ["scBERT", scbert, "scbert", "lucidrains-global"],
  ["Performer", { ...layer("net."), "proj_updater.calls_since_last_redraw": [] }, "performer", "lucidrains"],
  ["PerformerEncDec", crossing, "performer-enc-dec", "lucidrains"],
  ["SelfAttention", attention("", false), "self-attention", "lucidrains"],
  ["MoLFormer of Hugging Face", hugging, "molformer", "molformer"],
  ["MoLFormer of IBM", ibm, "molformer-ibm", "molformer-ibm"],
  ["BulkFormer", layer("gb_formers.0.f.0.net."), "bulkformer", "lucidrains"],
  [
    "scFoundation",
    { ...layer("decoder.performer.net."), ...norm("decoder.norm") },
    "scfoundation",
    "lucidrains-global",
  ],
];

async function inspected(path: string, shapes: Shapes, wide: readonly string[] = []) {
  let at = 0;
  const header = Object.entries(shapes).map(([name, shape]) => {
    const isWide = wide.includes(name);
    const end = at + shape.reduce((a, b) => a * b, isWide ? 8 : 4);
    const entry = { dtype: isWide ? "F64" : "F32", shape, data_offsets: [at, end] };
    at = end;
    return [name, entry];
  });
  writeFileSync(path, safetensors(JSON.stringify(Object.fromEntries(header)), new Uint8Array(at)));
  const model = await inspectModel(await describeFile(path), undefined);
  return { model: model!, words: modelWords(model!).join("\n") };
}

const wideOf = (shapes: Shapes) => shapes === scbert ? ["pos_emb.emb.weight"] : [];

describe("inspect names", () => {
  test.each(RELATIVES)("%s", async (_, shapes, family, rules) => {
    await using dir = folder();
    const { model, words } = await inspected(dir.file("m.safetensors"), shapes, wideOf(shapes));
    expect(model).toMatchObject({ family, rules, extra: [] });
    expect(words).toContain(`numerics     ${rules}`);
  });

  test("an unknown family: what was found, and what is supported", async () => {
    await using dir = folder();
    const other = Object.fromEntries(["a", "b", "c", "d"].map((name) => [`conv.${name}`, [3]]));
    const { model, words } = await inspected(dir.file("m.safetensors"), other);
    expect(model.family).toBeNull();
    for (const part of ['"conv.a"', "PerformerLM", "MoLFormer", "BulkFormer"]) expect(words).toContain(part);
  });
});

describe.each(RELATIVES.filter(([, , family]) => family !== "bulkformer"))("%s, damaged", (_, shapes) => {
  const names = Object.keys(shapes).filter((name) => /to_k\.weight|key\.weight|key_projection\.weight/.test(name));

  test("a tensor that is missing is named, with the nearest there is", async () => {
    await using dir = folder();
    const path = dir.file("m.safetensors");
    for (const name of names) {
      const { [name]: shape, ...rest } = shapes;
      const { words } = await inspected(path, { ...rest, [`${name}s`]: shape }, wideOf(shapes));
      expect(words).toContain(`it lacks tensor "${name}"; the nearest it has is "${name}s"`);
      expect(words).toContain(path);
    }
    expect(names.length).toBeGreaterThan(0);
  });

  test("a shape that does not fit is named, with the expected one", async () => {
    await using dir = folder();
    for (const name of names) {
      const [rows, cols] = shapes[name];
      for (const wrong of [[rows + 1, cols], [rows], [rows, 0]]) {
        const { words } = await inspected(dir.file("m.safetensors"), { ...shapes, [name]: wrong }, wideOf(shapes));
        expect(words).toContain(`tensor "${name}" is [${wrong.join(", ")}], expected [${rows}, ${cols}]`);
      }
    }
  });
});

test("layers without numbers, and heads that are no whole number", async () => {
  await using dir = folder();
  const path = dir.file("m.safetensors");
  const nameless = { "token_emb.weight": [1, 1], "performer.net.layers.x": [1], "norm.weight": [1], "norm.bias": [1] };
  expect((await inspected(path, nameless)).words).toContain('no tensors under "performer.net.layers.0."');
  const stray = { "encoder.layer.0.attention.self.query.weight": [1], "bert.encoder.layer.x": [1] };
  const tables = ["word_embeddings.weight", "position_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"];
  const bert = Object.fromEntries(
    tables.map((name) => [`bert.embeddings.${name}`, /Norm/.test(name) ? [64] : [64, 64]]),
  );
  expect((await inspected(path, { ...stray, ...bert })).words).toContain('no tensors under "bert.encoder.layer.0."');
  const odd = { ...hugging, "molformer.encoder.layer.0.attention.self.feature_map.weight": [5, M] };
  expect((await inspected(path, odd)).words).toContain("no multiple of the 5");
});
