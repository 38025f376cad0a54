/**
 * Exact attention, no attention and features side by side: against models without attention that make.py ran, against stored logits
 * of performer-pytorch, and against sums over all pairs.
 */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { readSequences } from "../../src/commands/model_inputs.ts";
import type { DriftFindings, Variant } from "../../src/drift.ts";
import { driftWarnings } from "../../src/drift.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { parseConfiguration } from "../../src/model/arguments.ts";
import { type DriftOptions, measureDrift } from "../../src/model/drift.ts";
import { AttentionMeasure, MeasuringSession } from "../../src/model/drift_session.ts";
import { forward } from "../../src/model/forward.ts";
import { recognise } from "../../src/model/recognise.ts";
import { prepareExactSoftmax } from "../../src/rules_exact.ts";
import type { RuledPlan } from "../../src/rules_plan.ts";
import { UniformSession } from "../../src/rules_uniform.ts";
import { RandomStream } from "../../src/random.ts";
import { expectedOf, numbers, openModel, TRANSFORMERS } from "./transformers.ts";

const { backend: scalar } = await openFirst(parseBackendList("scalar"), {});
const { backend: wasm } = await openFirst(parseBackendList("wasm"), {});

const EXACT: Variant = { features: "softmax", numFeatures: null, projection: null };
const map = (features: string, numFeatures: number): Variant => ({ features, numFeatures, projection: "orthogonal" });

async function drift(
  name: string,
  options: Partial<DriftOptions> & Pick<DriftOptions, "variants">,
): Promise<DriftFindings> {
  await using model = await openModel(name);
  const layers = { start: 0, end: model.layout.layers.length };
  return await measureDrift({ ...model, rules: "exact", backend: scalar, layers, seed: 0, ...options });
}

describe.each([...TRANSFORMERS])("%s", (name) => {
  test("the baseline is the model without attention, and exact attention is not away from itself", async () => {
    const wanted = expectedOf(name);
    for (const [backend, digits] of [[scalar, 9], [wasm, 4]] as const) {
      const { layers, outputs } = await drift(name, { variants: [EXACT], backend });
      expect(layers.length).toBe(wanted.hidden.length);
      for (const { layer, attention, hidden } of layers) {
        expect(attention!.results[0]).toMatchObject({ relativeL2: 0, skill: 1 });
        expect(hidden.results[0]).toMatchObject({ relativeL2: 0, skill: 1 });
        expect(attention!.results[0].uniformBaseline).toBeCloseTo(wanted.attention[layer], digits);
        expect(hidden.results[0].uniformBaseline).toBeCloseTo(wanted.hidden[layer], digits);
      }
      expect(outputs).toMatchObject({ kind: "logits", results: [{ relativeL2: 0, skill: 1, top1: 1 }] });
      expect(outputs.results[0].uniformBaseline).toBeCloseTo(wanted.logits, digits);
      expect(outputs.uniformTop1).toBeCloseTo(wanted.top1, 9);
    }
  });

  test("more features: a smaller error in every layer and at the end", async () => {
    const sizes = [16, 256, 4096];
    const { layers, outputs } = await drift(name, { variants: sizes.map((m) => map("hyperbolic", m)) });
    const falls = (results: readonly { relativeL2: number; skill: number }[]) => {
      const errors = results.map(({ relativeL2 }) => relativeL2);
      expect(errors[1]).toBeLessThan(errors[0]);
      expect(errors[2]).toBeLessThan(errors[1]);
      expect(errors[2]).toBeLessThan(errors[0] / 3); // √256 = 16 once m is large for these rows, which 16 is not
      expect(results[2].skill).toBeGreaterThan(0.8);
    };
    for (const { attention, hidden } of layers) {
      falls(attention!.results);
      falls(hidden.results);
      expect([attention!.best, hidden.best]).toEqual([map("hyperbolic", 4096), map("hyperbolic", 4096)]);
    }
    falls(outputs.results);
  });
});

describe("streams", () => {
  const variants = [map("positive", 32), map("hyperbolic", 32)];

  test("tiles and backends do not change what is found", async () => {
    for (const name of ["bert", "gpt2"]) {
      const whole = await drift(name, { variants });
      const close = (other: DriftFindings, digits: number) => {
        const figures = ({ layers, outputs }: DriftFindings) =>
          [...layers.flatMap(({ attention, hidden }) => [...attention!.results, ...hidden.results]), ...outputs.results]
            .flatMap(({ relativeL2, uniformBaseline }) => [relativeL2, uniformBaseline]);
        figures(other).forEach((value, i) => expect(value).toBeCloseTo(figures(whole)[i], digits));
        other.layers.forEach(({ attention }, i) =>
          expect(attention!.phi).toBeCloseTo(whole.layers[i].attention!.phi, digits)
        );
      };
      close(await drift(name, { variants, tileRows: 5 }), 9);
      close(await drift(name, { variants, backend: wasm }), 4);
    }
  });

  test("only the chosen layers are replaced", async () => {
    const { layers } = await drift("bert", { variants, layers: { start: 1, end: 2 } });
    expect(layers.map(({ replaced, attention }) => [replaced, attention === null])).toEqual([
      [false, true],
      [true, false],
      [false, true],
    ]);
    expect(layers[0].hidden.results.map(({ relativeL2 }) => relativeL2)).toEqual([0, 0]);
    for (const layer of [1, 2]) {
      for (const { relativeL2 } of layers[layer].hidden.results) expect(relativeL2).toBeGreaterThan(1e-3);
    }
  });

  test("padding counts nowhere: other tokens there change nothing", async () => {
    await using model = await openModel("bert");
    const sequences = model.sequences.map((sequence) => ({
      ...sequence,
      tokens: sequence.tokens!.map((token, i) => sequence.mask![i] === 0 ? (token + 7) % 61 : token),
    }));
    expect(sequences[1].tokens).not.toEqual(model.sequences[1].tokens);
    expect(await drift("bert", { variants, sequences })).toEqual(await drift("bert", { variants }));
    const unmasked = model.sequences.map((sequence) => ({ ...sequence, mask: null }));
    expect(await drift("bert", { variants, sequences: unmasked })).not.toEqual(await drift("bert", { variants }));
  });

  test("seeds draw other features, layers draw their own", async () => {
    const [first, again, other] = await Promise.all([0, 0, 1].map((seed) => drift("llama", { variants, seed })));
    expect(again).toEqual(first);
    expect(other).not.toEqual(first);
  });
});

describe("a Performer brings its own features", () => {
  const of = (name: string, file: string) => fileURLToPath(new URL(`../golden/lm/${name}/${file}`, import.meta.url));

  test.each(["masked_batch2", "rotary_glu_scalenorm_causal", "reversible", "noproj"])("%s", async (name) => {
    await using container = await openContainer(of(name, "model.pt"));
    const configuration = parseConfiguration("config.json", readFileSync(of(name, "config.json"), "utf8"));
    const { layout, rules } = recognise(name, container.members, { configuration });
    const mask = existsSync(of(name, "mask.npy")) ? of(name, "mask.npy") : undefined;
    const { list: sequences } = await readSequences(of(name, "tokens.npy"), mask, layout!);
    const shared = { container, layout: layout!, rules, backend: wasm, sequences, input: name };
    const own = { features: "own", numFeatures: layout!.layers[0].attention.features, projection: null };
    const all = { start: 0, end: layout!.layers.length };
    const { outputs, layers } = await measureDrift({ ...shared, variants: [own], layers: all, seed: 0 });
    // The exact stream again, against what performer-pytorch made with its own features.
    const { data: logits } = await numbers(of(name, "logits.npy"));
    const length = sequences[0].length;
    let [error, norm] = [0, 0];
    await forward({
      ...shared,
      numerics: { prepare: prepareExactSoftmax },
      write: async (item, { start, rows, cols, data }) => {
        for (let i = 0; i < rows * cols; i++) {
          if (sequences[item].mask?.[start + Math.floor(i / cols)] === 0) continue;
          error += (logits[(item * length + start) * cols + i] - data[i]) ** 2;
          norm += data[i] ** 2;
        }
      },
    });
    const wanted = Math.sqrt(error / norm);
    expect(wanted).toBeGreaterThan(1e-3);
    expect(outputs.results[0].relativeL2 / wanted).toBeCloseTo(1, 3);
    for (const { attention } of layers) expect(attention!.results[0].relativeL2).toBeGreaterThan(1e-3);
  });
});

test("one layer against sums over all pairs: φ̄, baseline and error, with a mask and shared key heads", async () => {
  const [rows, heads, kvHeads, d] = [11, 4, 2, 6];
  const random = new RandomStream(5, 1);
  const [q, k, v] = [heads, kvHeads, kvHeads].map((count) => Float64Array.from(random.normals(rows * count * d)));
  const mask = Float64Array.from({ length: rows }, (_, i) => i % 4 === 3 ? 0 : 1);
  const plan: RuledPlan = {
    rules: "exact",
    kernel: "exact-softmax",
    activation: "relu",
    projection: new Float64Array(),
    heads,
    kvHeads,
    headDim: d,
    valueDim: d,
    causal: false,
    tileRows: 4,
  };
  const measure = new AttentionMeasure(plan, 1);
  const session = new MeasuringSession(
    measure,
    await prepareExactSoftmax(scalar, plan),
    new UniformSession(plan, "f64"),
    [new UniformSession(plan, "f64")], // a rival that is the baseline itself: skill 0
  );
  const tile = (data: Float64Array, start: number) => {
    const [cols, count] = [data.length / rows, Math.min(4, rows - start)];
    return { start, rows: count, cols, data: data.subarray(start * cols, (start + count) * cols) };
  };
  for (let start = 0; start < rows; start += 4) {
    await session.absorb(tile(k, start), tile(v, start), mask.subarray(start, start + 4));
  }
  const out = new Float64Array(rows * heads * d);
  for (let start = 0; start < rows; start += 4) out.set((await session.emit(tile(q, start))).data, start * heads * d);
  await session.reset();

  let [phi, pairs, error, norm] = [0, 0, 0, 0];
  for (let i = 0; i < rows; i++) {
    for (let h = 0; h < heads; h++) {
      const at = (j: number) => (j * kvHeads + Math.floor(h / 2)) * d;
      const weights = Array.from({ length: rows }, (_, j) => {
        let dot = 0;
        for (let c = 0; c < d; c++) dot += q[(i * heads + h) * d + c] * k[at(j) + c];
        return mask[j] * Math.exp(dot / Math.sqrt(d));
      });
      const total = weights.reduce((a, b) => a + b);
      const seen = mask.reduce((a, b) => a + b);
      for (let c = 0; c < d; c++) {
        const mean = mask.reduce((sum, one, j) => sum + one * v[at(j) + c], 0) / seen;
        const exact = weights.reduce((sum, weight, j) => sum + weight * v[at(j) + c], 0) / total;
        expect(out[(i * heads + h) * d + c]).toBeCloseTo(exact, 12);
        error += mask[i] * (mean - exact) ** 2;
        norm += mask[i] * exact ** 2;
      }
      for (let j = 0; j < rows; j++) {
        if (mask[i] * mask[j] === 0) continue;
        pairs++;
        for (let c = 0; c < d; c++) phi += (q[(i * heads + h) * d + c] + k[at(j) + c]) ** 2 / Math.sqrt(d);
      }
    }
  }
  expect(measure.phi / measure.rows).toBeCloseTo(phi / pairs, 10);
  const figures = measure.sums[0].figures();
  expect(figures.uniformBaseline).toBeCloseTo(Math.sqrt(error / norm), 10);
  expect([figures.relativeL2, figures.skill]).toEqual([figures.uniformBaseline, 0]);
});

test("warnings say in words where nothing is better than ignoring attention", () => {
  const error = (skill: number) => ({ ...map("positive", 8), relativeL2: 1, uniformBaseline: 1, skill });
  const layer = (index: number, skill: number) => ({
    layer: index,
    replaced: true,
    attention: { heads: 1, kvHeads: 1, headDim: 8, phi: 9, results: [error(skill)], best: map("positive", 8) },
    hidden: { results: [error(skill)], best: map("positive", 8) },
  });
  const findings = (skill: number): DriftFindings => ({
    variants: [map("positive", 8)],
    layers: [layer(0, -1), layer(1, 0), layer(2, 0.9), layer(3, -2)],
    outputs: {
      kind: "logits",
      cols: 2,
      uniformTop1: 0,
      results: [{ ...error(skill), top1: 0 }],
      best: map("positive", 8),
    },
    nonPositive: [0],
  });
  const [layers, outputs] = driftWarnings(findings(-0.5), false);
  expect(layers.message).toContain("layers 0 to 1, 3 no approximation is better than ignoring attention");
  expect(layers.remedy).toContain("-m 32");
  expect([outputs.code, outputs.message]).toEqual(["no-skill", expect.stringContaining("positive 8")]);
  expect(driftWarnings(findings(0.8), false).map(({ code }) => code)).toEqual(["no-skill"]);
});
