/** Features and states by themselves. */
import { describe, expect, test } from "bun:test";
import {
  attend,
  drawProjection,
  FEATURE_MAPS,
  load,
  loadModel,
  newState,
  normal,
  phi,
  relativeError,
  restoreState,
  type Tensor,
} from "../../mod.ts";

const [d, L] = [6, 24];
const [q, k, v] = [1, 2, 3].map((seed) => normal([L, d], { seed, sd: 0.6 }));

/** Attention from features alone: what the library should have computed. */
function fromFeatures(a: Tensor, b: Tensor, v: Tensor, causal: boolean): number[] {
  const r = a.shape[1];
  const out: number[] = [];
  for (let i = 0; i < L; i++) {
    let total = 0;
    const sums = new Array<number>(d).fill(0);
    for (let j = 0; j < (causal ? i + 1 : L); j++) {
      let weight = 0;
      for (let f = 0; f < r; f++) weight += a.data[i * r + f] * b.data[j * r + f];
      total += weight;
      for (let c = 0; c < d; c++) sums[c] += weight * v.data[j * d + c];
    }
    out.push(...sums.map((sum) => sum / total));
  }
  return out;
}

describe("features", () => {
  test("attention is what φ says, for every map", async () => {
    for (const { name, angular } of FEATURE_MAPS) {
      const settings = { features: name, numFeatures: 24, seed: 4 } as const;
      const [a, b] = [await phi(q, { ...settings, role: "queries" }), await phi(k, { ...settings, role: "keys" })];
      const { output } = await attend(q, k, v, {
        ...settings,
        backend: "scalar",
        check: 0,
        params: angular ? undefined : paramsOf(name),
      });
      expect([name, relativeError(fromFeatures(a, b, v, false), output) < 1e-9]).toEqual([name, true]);
    }
  });

  test("φ(q)·φ(k) estimates exp(S q·k), and its logarithm is ln φ", async () => {
    const settings = { numFeatures: 20_000, scale: 0.3 };
    const [a, b] = [await phi(q, settings), await phi(k, settings)];
    const dot = (x: Tensor, i: number, y: Tensor, j: number) => {
      const width = x.shape[1];
      return Array.from(x.data.subarray(i * width, (i + 1) * width)).reduce(
        (sum, value, c) => sum + value * y.data[j * width + c],
        0,
      );
    };
    for (let i = 0; i < L; i++) expect(dot(a, i, b, i) / Math.exp(0.3 * dot(q, i, k, i))).toBeCloseTo(1, 1);
    const log = await phi(q, { ...settings, log: true });
    expect(relativeError(log.data.map(Math.exp), a)).toBeLessThan(1e-12);
    await expect(phi(q, { features: "trigonometric", log: true })).rejects.toThrow("negative features");
    await expect(phi(q, { features: "softmax" })).rejects.toThrow("has none");
  });

  test("a drawn projection can be given back", async () => {
    const W = drawProjection({ projections: 16, headDim: d, seed: 2 });
    expect(W.shape).toEqual([16, d]);
    const given = await attend(q, k, v, { projection: W, numFeatures: 32, backend: "scalar", centre: "off" });
    const drawn = await attend(q, k, v, { seed: 2, numFeatures: 32, backend: "scalar", centre: "off" });
    expect(relativeError(given.output, drawn.output)).toBe(0);
    expect(drawProjection({ projections: 4, headDim: 2, matrices: 3 }).shape).toEqual([3, 4, 2]);
  });
});

/** Fitted maps take fixed numbers for φ; other softmax maps are compared without moving keys. */
const paramsOf = (name: string) =>
  FEATURE_MAPS.find((map) => map.name === name)!.kernel === "softmax" && name !== "hybrid" ? "fixed" : undefined;

describe.each(["scalar", "wasm"])("states on %s", (backend) => {
  const tolerance = backend === "scalar" ? 1e-12 : 1e-5;
  const settings = { width: d, numFeatures: 32 };

  test("absorbing all and emitting is bidirectional attention", async () => {
    await using state = await newState(settings, backend);
    await state.absorb(k, v);
    const { output } = await attend(q, k, v, { numFeatures: 32, backend, centre: "off", check: 0 });
    expect(relativeError(await state.emit(q), output)).toBeLessThan(tolerance);
    expect(state.rows).toBe(L);
  });

  test("a step per token is causal attention, with and without decay", async () => {
    for (const decay of [undefined, 0.2]) {
      await using state = await newState({ ...settings, decay }, backend);
      const outputs: number[] = [];
      for (let i = 0; i < L; i++) {
        const row = (x: Tensor) => x.data.slice(i * d, (i + 1) * d);
        outputs.push(...(await state.step(row(q), row(k), row(v))).data);
      }
      const { output } = await attend(q, k, v, { numFeatures: 32, backend, causal: true, decay, check: 0 });
      expect(relativeError(outputs, output)).toBeLessThan(tolerance);
    }
  });

  test("states of shards merge to the state of all, in any order", async () => {
    await using whole = await newState(settings, backend);
    await whole.absorb(k, v);
    await using merged = await newState(settings, backend);
    for (const rows of [[16, 24], [0, 7], [7, 16]] as const) {
      await using shard = await newState(settings, backend);
      await shard.absorb(await k.view({ rows }), await v.view({ rows }));
      await merged.merge(structuredClone(await shard.save()));
    }
    expect(relativeError(await merged.emit(q), await whole.emit(q))).toBeLessThan(tolerance);
    await using again = await restoreState(await merged.save(), backend);
    expect(again.rows).toBe(L);
    expect(relativeError(await again.emit(q), await merged.emit(q))).toBeLessThan(1e-12);
    await using other = await newState({ ...settings, seed: 1 }, backend);
    await expect(merged.merge(other)).rejects.toThrow("Cannot join states: seed is 1, expected 0");
  });

  test("decayed shards merge in their order", async () => {
    const decayed = { ...settings, decay: 0.1 };
    await using whole = await newState(decayed, backend);
    await whole.absorb(k, v);
    await using first = await newState(decayed, backend);
    await using second = await newState(decayed, backend);
    await first.absorb(await k.view({ rows: [0, 10] }), await v.view({ rows: [0, 10] }));
    await second.absorb(await k.view({ rows: [10, L] }), await v.view({ rows: [10, L] }));
    await first.merge(second);
    const [a, b] = [await first.save(), await whole.save()];
    expect(relativeError(a.state.c, b.state.c)).toBeLessThan(tolerance);
    expect(relativeError(a.state.z, b.state.z)).toBeLessThan(tolerance);
    expect(relativeError(a.state.S, b.state.S)).toBeLessThan(tolerance);
    expect(relativeError(await first.emit(q), await whole.emit(q))).toBeLessThan(tolerance);
  });
});

describe("models", () => {
  test("logits are those of the golden file, generated tokens follow the prompt", async () => {
    const folder = "tests/golden/lm/rotary_glu_scalenorm_causal";
    await using model = await loadModel(`${folder}/model.pt`, { config: `${folder}/config.json`, backend: "scalar" });
    const tokens = await (await load(`${folder}/tokens.npy`)).read();
    const logits = await (await load(`${folder}/logits.npy`)).read();
    const own = await model.run(tokens.data.slice(0, tokens.shape.at(-1)!));
    expect(own.shape[0]).toBe(tokens.shape.at(-1)!);
    expect(relativeError(own.data, logits.data.slice(0, own.data.length))).toBeLessThan(1e-4);
    const made: number[] = [];
    for await (const token of model.generate([1, 2, 3], { tokens: 4, temperature: 0 })) made.push(token);
    expect(made.length).toBe(4);
    await expect(model.run([0.5])).rejects.toThrow("whole numbers");
  });
});
