/**
 * Key layouts of performer-pytorch through its history, and of its relatives: what a checkpoint is called is told from names and
 * shapes alone. Fixtures are built from the table of the versions' state dicts.
 */
import { describe, expect, test } from "bun:test";
import { InputError } from "../../src/errors.ts";
import type { TensorHeader } from "../../src/model/description.ts";
import { recognise } from "../../src/model/recognise.ts";

const DIM = 32, HEADS = 4, HEAD = 8, INNER = HEADS * HEAD, M = 20, TOKENS = 11, LENGTH = 64, DEPTH = 2;

type Shapes = Record<string, readonly number[]>;

/** What changed from version to version. */
interface Era {
  /** Names of attention and feed-forward of layer i. */
  readonly layers?: "flat" | "pairs" | "reversible";
  readonly joined?: boolean;
  readonly oldFeedForward?: boolean;
  readonly projection?: boolean;
  readonly queryBias?: boolean;
  readonly outBias?: boolean;
  readonly shift?: boolean;
  readonly glu?: boolean;
  readonly norm?: "layer" | "rezero" | "scale";
  readonly attentionCounter?: boolean;
  readonly extra?: Shapes;
}

const dense = (name: string, outputs: number, inputs: number, bias = true): Shapes => ({
  [`${name}.weight`]: [outputs, inputs],
  ...(bias ? { [`${name}.bias`]: [outputs] } : {}),
});

const normOf = (name: string, kind: Era["norm"] = "layer"): Shapes =>
  kind === "layer"
    ? { [`${name}.norm.weight`]: [DIM], [`${name}.norm.bias`]: [DIM] }
    : { [`${name}.g`]: kind === "scale" ? [1] : [] };

/** Tensors of the layers under `start`. */
function net(start: string, era: Era): Shapes {
  const shapes: Shapes = {};
  for (let i = 0; i < DEPTH; i++) {
    const [attention, feed] = era.layers === "flat"
      ? [`${start}net.${2 * i}`, `${start}net.${2 * i + 1}`]
      : era.layers === "reversible"
      ? [`${start}net.blocks.${i}.f.net`, `${start}net.blocks.${i}.g.net`]
      : [`${start}net.layers.${i}.0`, `${start}net.layers.${i}.1`];
    // Flat layers are Residual(PreNorm(f)): one "fn." more.
    const outer = era.layers === "flat" ? ".fn" : "";
    const fn = `${outer}.fn${era.shift ? ".fn" : ""}`;
    const a = `${attention}${fn}`;
    Object.assign(shapes, normOf(`${attention}${outer}`, era.norm), normOf(`${feed}${outer}`, era.norm));
    if (era.joined) shapes[`${a}.to_qkv.weight`] = [3 * INNER, DIM];
    else for (const x of "qkv") Object.assign(shapes, dense(`${a}.to_${x}`, INNER, DIM, era.queryBias ?? false));
    Object.assign(shapes, dense(`${a}.to_out`, DIM, INNER, era.outBias ?? true));
    if (era.projection) shapes[`${a}.fast_attention.projection_matrix`] = [M, HEAD];
    if (era.attentionCounter) shapes[`${a}.fast_attention.calls_since_last_redraw`] = [];
    const f = era.oldFeedForward ? `${feed}${fn}` : `${feed}${fn}.fn`;
    const [first, second] = era.oldFeedForward ? ["net.0", "net.2"] : ["w1", "w2"];
    Object.assign(
      shapes,
      dense(`${f}.${first}`, 4 * DIM * (era.glu ? 2 : 1), DIM),
      dense(`${f}.${second}`, DIM, 4 * DIM),
    );
  }
  return shapes;
}

const EMBEDDING: Shapes = { "token_emb.weight": [TOKENS, DIM] };
const NORM: Shapes = { "norm.weight": [DIM], "norm.bias": [DIM] };
const OUT = dense("to_out", TOKENS, DIM);
const ROTARY: Shapes = { "pos_emb.emb": [LENGTH, DIM], "layer_pos_emb.emb": [LENGTH, HEAD] };
const LEARNED: Shapes = { "pos_emb.emb.weight": [LENGTH, DIM] };
const COUNTER: Shapes = { "performer.calls_since_last_redraw": [] };

/** Since 1.0.9 everything of the net a second time. */
function updated(shapes: Shapes): Shapes {
  const second = Object.entries(shapes).filter(([name]) => name.startsWith("performer.net."));
  return {
    ...shapes,
    "performer.proj_updater.calls_since_last_redraw": [],
    ...Object.fromEntries(
      second.map(([name, shape]) => [name.replace("performer.net", "performer.proj_updater.instance"), shape]),
    ),
  };
}

const OLD: Era = { joined: true, oldFeedForward: true };
const NEW: Era = { projection: true, queryBias: false, outBias: false };
const lm = (era: Era, ...parts: Shapes[]): Shapes => Object.assign({}, EMBEDDING, net("performer.", era), ...parts);
const DIRECT: Shapes = { "pos_emb.weight": [LENGTH, DIM] };

/** Layout, tensors, a version that wrote it, and the rules for it. */
const LAYOUTS: readonly [string, Shapes, string, string][] = [
  [
    "0.0.5",
    lm({ ...OLD, layers: "flat" }, DIRECT, dense("to_logits", TOKENS, DIM)),
    "≤ 0.0.5 or 0.1.0",
    "lucidrains-global",
  ],
  ["0.0.6", lm(OLD, DIRECT, dense("to_logits", TOKENS, DIM)), "0.0.6 … 0.2.1", "lucidrains-global"],
  [
    "0.3.0",
    lm(OLD, DIRECT, { "to_logits.0.weight": [DIM], "to_logits.0.bias": [DIM] }, dense("to_logits.1", TOKENS, DIM)),
    "0.3.0 … 0.3.x",
    "lucidrains-global",
  ],
  ["0.4.0", lm(OLD, DIRECT, NORM, dense("to_logits", TOKENS, DIM)), "0.4.0 … 0.4.x", "lucidrains-global"],
  ["0.5.0", lm({ joined: true }, DIRECT, NORM, dense("to_logits", TOKENS, DIM)), "0.5.0 … 0.7.2", "lucidrains-global"],
  ["0.7.3", lm({ queryBias: true }, DIRECT, NORM, dense("to_logits", TOKENS, DIM)), "0.7.3", "lucidrains-global"],
  ["0.7.4", lm({ queryBias: true }, DIRECT, NORM), "0.7.4 … 0.10.x", "lucidrains-global"],
  ["0.10.0", lm({ queryBias: true, attentionCounter: true }, DIRECT, NORM), "0.10.0 … 0.10.x", "lucidrains-global"],
  [
    "0.11.0",
    lm({ queryBias: true, attentionCounter: true, projection: true }, DIRECT, NORM),
    "0.11.0 … 0.13.x",
    "lucidrains-global",
  ],
  ["0.14.0", lm({ queryBias: true, projection: true }, DIRECT, NORM, COUNTER), "0.14.0 … 0.14.x", "lucidrains-global"],
  [
    "0.14.4",
    lm({ queryBias: true, projection: true }, DIRECT, NORM, COUNTER, OUT),
    "0.14.4 … 0.14.x",
    "lucidrains-global",
  ],
  [
    "0.15.0",
    lm({ queryBias: true, projection: true }, LEARNED, NORM, COUNTER, OUT),
    "0.15.0 … 1.0.8",
    "lucidrains-global",
  ],
  [
    "1.0.0",
    lm({ queryBias: true, projection: true }, ROTARY, NORM, COUNTER, OUT),
    "1.0.0 … 1.0.8",
    "lucidrains-global",
  ],
  ["1.0.2", lm({ projection: true }, ROTARY, NORM, COUNTER, OUT), "1.0.2 … 1.0.8", "lucidrains-global"],
  [
    "1.0.3",
    lm({ projection: true }, { "layer_pos_emb.emb": [LENGTH, HEAD] }, NORM, COUNTER, OUT),
    "1.0.3",
    "lucidrains-global",
  ],
  ["1.0.7", lm(NEW, ROTARY, NORM, COUNTER, OUT), "1.0.7 … 1.0.8", "lucidrains-global"],
  ["1.0.9", updated(lm(NEW, ROTARY, NORM, OUT)), "1.0.9 … 1.1.4", "lucidrains"],
  [
    "1.0.9 with biases",
    updated(lm({ projection: true, queryBias: true }, ROTARY, NORM, OUT)),
    "1.0.9 … 1.1.4",
    "lucidrains",
  ],
  ["1.1.0 with token shift", updated(lm({ ...NEW, shift: true }, ROTARY, NORM, OUT)), "1.1.0 … 1.1.4", "lucidrains"],
  [
    "1.1.4 tied, GLU, ReZero",
    updated(lm({ ...NEW, glu: true, norm: "rezero" }, ROTARY, NORM)),
    "1.0.9 … 1.1.4",
    "lucidrains",
  ],
  ["1.1.4 ScaleNorm", updated(lm({ ...NEW, norm: "scale" }, LEARNED, NORM, OUT)), "1.0.9 … 1.1.4", "lucidrains"],
  ["1.1.4 reversible", updated(lm({ ...NEW, layers: "reversible" }, ROTARY, NORM, OUT)), "1.0.9 … 1.1.4", "lucidrains"],
  [
    "1.1.4 axial",
    updated(lm(NEW, { "pos_emb.weights_0": [1, 1, 1, DIM], "pos_emb.weights_1": [1, 1, 64, DIM] }, NORM, OUT)),
    "1.0.9 … 1.1.4",
    "lucidrains",
  ],
  [
    "1.1.4 axial ≥ 0.3",
    updated(lm(NEW, { "pos_emb.weights.0": [1, 1, 1, DIM], "pos_emb.weights.1": [1, 1, 64, DIM] }, NORM, OUT)),
    "1.0.9 … 1.1.4",
    "lucidrains",
  ],
];

const headers = (shapes: Shapes, prefix = ""): TensorHeader[] =>
  Object.entries(shapes).map(([name, shape]) => ({ name: prefix + name, shape, dtype: "f32" }));

describe("performer-pytorch through its history", () => {
  test.each(LAYOUTS)("%s", (_, shapes, versions, rules) => {
    for (const prefix of ["", "module.", "net.", "module.net."]) {
      const found = recognise("old.pt", headers(shapes, prefix));
      expect([found.family, found.versions!.text, found.rules]).toEqual(["performer-lm", versions, rules]);
      expect([found.extra, found.prefix]).toEqual([[], prefix]);
      expect(found.architecture).toMatchObject({ dim: DIM, depth: DEPTH });
    }
  });

  test("before 0.11.0 the random features are lost: recognised, and not run", () => {
    const { layout, reason } = recognise("old.pt", headers(lm({ queryBias: true }, DIRECT, NORM)));
    expect([layout, reason]).toEqual([null, expect.stringContaining("0.11.0")]);
  });
});

describe("what does not fit is named", () => {
  const [, shapes] = LAYOUTS.find(([name]) => name === "1.0.9")!;

  test("a missing tensor", () => {
    const { ["performer.net.layers.1.0.fn.to_k.weight"]: _, ...rest } = shapes;
    expect(() => recognise("half.pt", headers(rest))).toThrow(/performer\.net\.layers\.1\.0\.fn\.to_k\.weight/);
  });

  test("a wrong shape", () => {
    const wrong = { ...shapes, "performer.net.layers.1.0.fn.to_k.weight": [INNER + 1, DIM] };
    expect(() => recognise("wrong.pt", headers(wrong))).toThrow(/to_k\.weight.*33/);
  });

  test("an extra tensor, with the nearest name that is not taken", () => {
    const { extra } = recognise("more.pt", headers({ ...shapes, "performer.net.layers.1.0.fn.to_q.biases": [1] }));
    expect(extra).toEqual([{
      name: "performer.net.layers.1.0.fn.to_q.biases",
      nearest: "performer.net.layers.1.0.fn.to_q.bias",
    }]);
  });

  test("an unknown family", () => {
    const other = headers({ "conv1.weight": [3, 3], "conv1.bias": [3] });
    expect(() => recognise("resnet.pt", other)).toThrow(InputError);
    expect(() => recognise("resnet.pt", other)).toThrow(/conv1\.weight/);
  });
});
