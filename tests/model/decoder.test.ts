/**
 * Decoding from a running state equals whole forward passes under the same profile, at every position and for every kind of causal
 * layer; performer-pytorch's stored continuation comes out of its own rules.
 */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Backend } from "../../src/backend.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { parseConfiguration } from "../../src/model/arguments.ts";
import { Decoder } from "../../src/model/decoder.ts";
import { forward } from "../../src/model/forward.ts";
import { generate } from "../../src/model/generation.ts";
import { recognise } from "../../src/model/recognise.ts";
import type { RulesName } from "../../src/rules.ts";
import { describeBackends } from "../conformance/backends.ts";

const GOLDEN = fileURLToPath(new URL("../golden/", import.meta.url));
const POD = "models/pod_performer";
/** Causal models of every kind that is stored: shifted tokens, gates, scale norm, local heads, wrapped. */
const CAUSAL = [
  "lm/causal_autoregressive_prefix",
  "lm/local_causal_autopad",
  "lm/rotary_glu_scalenorm_causal",
  "lm/tied_shift_causal",
  POD,
];

async function model(name: string) {
  const container = await openContainer(`${GOLDEN}${name}/model.pt`);
  const configuration = parseConfiguration("config.json", readFileSync(`${GOLDEN}${name}/config.json`, "utf8"));
  return { container, layout: recognise(container.path, container.members, { configuration }).layout! };
}

async function tokensOf(name: string, file: string): Promise<number[]> {
  await using container = await openContainer(`${GOLDEN}${name}/${file}.npy`);
  return Array.from((await container.readAll(undefined, "f64")).data);
}

/** Logits of all rows by one forward pass. */
async function whole(backend: Backend, name: string, tokens: number[], rules: RulesName): Promise<number[][]> {
  const { container, layout } = await model(name);
  await using _container = container;
  const rows: number[][] = [];
  await forward({
    ...{ container, layout, rules, backend, input: "tokens" },
    sequences: [{ length: tokens.length, tokens: Int32Array.from(tokens), rows: null, mask: null }],
    write: async (_, { data, rows: count, cols }) => {
      for (let i = 0; i < count; i++) rows.push(Array.from(data.subarray(i * cols, (i + 1) * cols)));
    },
  });
  return rows;
}

describeBackends("decoding", (backend, slow) => {
  if (slow) {
    test.skip("whole models take minutes on a software GPU", () => {});
    return;
  }
  const f64 = backend.limits.precision === "f64";
  const quick = f64 || backend.name === "wasm";
  for (const name of quick ? CAUSAL : CAUSAL.slice(0, 1)) {
    test(`${name}: every row's logits are those of the whole forward pass`, async () => {
      const tokens = (await tokensOf(name, "tokens")).slice(0, 101);
      const wanted = await whole(backend, name, tokens, "lucidrains-causal");
      const { container, layout } = await model(name);
      await using _container = container;
      const options = { container, layout, rules: "lucidrains-causal", backend, positions: tokens.length } as const;
      await using decoder = await Decoder.open(options);
      const bound = f64 ? 1e-9 : name.includes("tied") ? 1e-4 : 1e-5;
      for (const [from, to] of [[0, 3], [3, 70], ...tokens.slice(70).map((_, i) => [70 + i, 71 + i])]) {
        if (from >= tokens.length) break;
        const last = Math.min(to, tokens.length);
        const logits = await decoder.advance(tokens.slice(from, last));
        const away = Math.max(...Array.from(logits, (x, i) => Math.abs(x - wanted[last - 1][i])));
        expect([last, away < bound ? "near" : away]).toEqual([last, "near"]);
      }
    });
  }

  if (!f64) return;

  async function greedy(rules: RulesName, recompute: boolean, tokens: number): Promise<number[]> {
    const { container, layout } = await model(POD);
    await using _container = container;
    const prompt = await tokensOf(POD, "prompt");
    const sampling = { temperature: 0, topK: null, topP: null, repetitionPenalty: 1, repetitionContext: 0 };
    const settings = { sampling, seed: 0, sequence: 0, stop: null };
    const made: number[] = [];
    for await (
      const { token } of generate({ container, layout, rules, backend, prompt, tokens, recompute, ...settings })
    ) {
      made.push(token);
    }
    return [...prompt, ...made];
  }

  test("greedy tokens are those of repeated forward passes", async () => {
    expect(await greedy("lucidrains-causal", false, 24)).toEqual(await greedy("lucidrains-causal", true, 24));
  });

  test("performer-pytorch's own continuation, recomputed under its rules", async () => {
    const stored = await tokensOf(POD, "greedy");
    const made = await greedy("lucidrains", true, 24);
    expect(made).toEqual(stored.slice(0, made.length));
  });

  test("a running state refuses rules that see the future", async () => {
    await expect(greedy("lucidrains", false, 4)).rejects.toThrow(/lucidrains-causal or --recompute/);
  });

  test("warming up leaves no trace: token shift, local heads and states start again", async () => {
    for (const name of ["lm/tied_shift_causal", "lm/local_causal_autopad"]) {
      const { container, layout } = await model(name);
      await using _container = container;
      const tokens = (await tokensOf(name, "tokens")).slice(0, 40);
      const options = { container, layout, rules: "lucidrains-causal", backend, positions: 60 } as const;
      await using fresh = await Decoder.open(options);
      await using warm = await Decoder.open(options);
      await warm.warmUp([3, 1, 4], 0.05);
      expect(warm.position).toBe(0);
      expect(await warm.advance(tokens)).toEqual(await fresh.advance(tokens));
    }
  });

  test("positions beyond the table are continued where it holds sines, refused where it was learned", async () => {
    const sines = await model(POD);
    await using _sines = sines.container;
    const tokens = await tokensOf(POD, "prompt");
    const options = { rules: "lucidrains-causal", backend } as const;
    const far = await Decoder.open({ ...sines, ...options, positions: 3000 });
    const near = await Decoder.open({ ...sines, ...options, positions: 70 });
    await using _both = {
      [Symbol.asyncDispose]: async () => void await Promise.all([far, near].map((d) => d[Symbol.asyncDispose]())),
    };
    expect(await far.advance(tokens)).toEqual(await near.advance(tokens));
    const learned = await model("lm/local_causal_autopad");
    await using _learned = learned.container;
    await expect(Decoder.open({ ...learned, ...options, positions: 3000 })).rejects.toThrow(/learned 256 positions/);
  });
});
