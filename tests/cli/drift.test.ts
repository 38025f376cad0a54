/** `drift` and `run` of softmax transformers as processes. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openFirst, parseBackendList } from "../../src/backends/mod.ts";
import { forward } from "../../src/model/forward.ts";
import { prepareExactSoftmax } from "../../src/rules_exact.ts";
import type { OwnRows } from "../../src/rules_plan.ts";
import type { Tile } from "../../src/tensor.ts";
import { openModel } from "../model/transformers.ts";
import { npyBytes, performer, readNpyBytes, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const of = (name: string, file: string) => join(ROOT, "tests/fixtures/transformers", name, file);
const model = (
  name: string,
) => [of(name, "model.safetensors"), of(name, "tokens.npy"), "--config", of(name, "config.json")];

interface Errors {
  readonly results: {
    features: string;
    numFeatures: number;
    relativeL2: number;
    uniformBaseline: number;
    skill: number;
    top1: number;
  }[];
  readonly best: { features: string; numFeatures: number };
}
interface Layer {
  readonly layer: number;
  readonly attention: Errors & { readonly phi: number };
  readonly hidden: Errors;
}

describe.each(Object.keys(RUNTIMES))("%s", (runtime) => {
  test("every layer, every map and m, and what it does to the logits", async () => {
    const flags = ["--mask", of("bert", "mask.npy"), "-m", "16,1024", "--backend", "scalar", "--json"];
    const { code, stdout, stderr } = await performer(["drift", ...model("bert"), ...flags], { runtime });
    expect([code, stderr]).toEqual([0, ""]);
    const report = JSON.parse(stdout);
    expect(Object.keys(report)).toEqual([
      ...["schema", "command", "model", "backend", "input", "seed", "variants", "layers", "outputs"],
      ...["seconds", "peakBytes", "warnings"],
    ]);
    expect(report).toMatchObject({
      schema: "performer-drift/1",
      model: { family: "bert", kernel: "exact-softmax" },
      input: { sequences: 2, rows: 48, masked: true, causal: false },
      outputs: { kind: "logits", cols: 61 },
    });
    const names = ["hyperbolic 16", "hyperbolic 1024", "positive 16", "positive 1024"];
    const seen = ({ results }: Errors) => results.map(({ features, numFeatures }) => `${features} ${numFeatures}`);
    expect(report.layers.map(({ layer }: Layer) => layer)).toEqual([0, 1, 2]);
    for (
      const errors of [...report.layers.flatMap(({ attention, hidden }: Layer) => [attention, hidden]), report.outputs]
    ) {
      expect(seen(errors)).toEqual(names);
      expect(errors.best.numFeatures).toBe(1024);
      for (const { relativeL2, uniformBaseline, skill } of errors.results) {
        expect(1 - (relativeL2 / uniformBaseline) ** 2).toBeCloseTo(skill, 9);
      }
    }
  });

  test("a causal model with shared key heads, in words", async () => {
    const { code, stdout, stderr } = await performer(["drift", ...model("llama"), "-m", "128", "--backend", "wasm"], {
      runtime,
    });
    expect([code, stderr]).toEqual([0, ""]);
    for (const words of ["2 layers · causal", "hyperbolic 128", "positive 128", "uniform", "same top token"]) {
      expect(stdout).toContain(words);
    }
  });
});

describe("forms of the report", () => {
  const args = [
    "drift",
    ...model("gpt2"),
    "--features",
    "positive,softmax",
    "-m",
    "8",
    "--backend",
    "scalar",
    "--layer",
    "1",
  ];

  test("csv has one line per error, and -o saves what the suffix says", async () => {
    const saved = path("drift.md");
    const { code, stdout } = await performer([...args, "--format", "csv", "-o", saved]);
    const [header, ...lines] = stdout.trim().split("\n").map((line) => line.split(","));
    expect([code, header.slice(0, 4)]).toEqual([0, ["part", "layer", "features", "numFeatures"]]);
    expect(lines.map(([part, layer, features]) => `${part} ${layer} ${features}`)).toEqual([
      ...["attention 1 positive", "attention 1 softmax"],
      ...["hidden 0 positive", "hidden 0 softmax", "hidden 1 positive", "hidden 1 softmax"],
      ...["logits  positive", "logits  softmax"],
    ]);
    expect(lines.filter(([, , features]) => features === "softmax").map((line) => line[5])).toEqual([
      "0",
      "0",
      "0",
      "0",
    ]);
    expect(readFileSync(saved, "utf8")).toContain("| 0 (exact) |");
  });

  test("where nothing helps it says so", async () => {
    // Keys 30 times as large: no random features of 2 numbers can follow.
    const container = readFileSync(of("gpt2", "model.safetensors"));
    const size = Number(container.readBigUInt64LE(0));
    const header = JSON.parse(container.subarray(8, 8 + size).toString());
    const [from, to] = header["h.1.attn.c_attn.weight"].data_offsets;
    for (let at = 8 + size + from; at < 8 + size + to; at += 4) {
      container.writeFloatLE(container.readFloatLE(at) * 6, at);
    }
    writeFileSync(path("large.safetensors"), container);
    const { code, stdout } = await performer(["drift", path("large.safetensors"), ...args.slice(2)]
      .map((arg) => arg === "positive,softmax" ? "positive" : arg));
    expect([code, stdout]).toEqual([0, expect.stringContaining("better than ignoring attention")]);
    expect(stdout).toContain("none better than ignoring attention");
  });
});

test.each(["gpt2", "llama"])("%s: the error of layer 0 is what attend finds for the same q, k and v", async (name) => {
  await using opened = await openModel(name);
  const [sequence] = opened.sequences;
  const captured = { q: [] as number[][], k: [] as number[][], v: [] as number[][] };
  const add = (role: keyof typeof captured, { rows, cols, data }: Tile) => {
    for (let i = 0; i < rows; i++) captured[role].push(Array.from(data.subarray(i * cols, (i + 1) * cols)));
  };
  let widths = { q: 0, k: 0, v: 0 };
  await forward({
    ...opened,
    rules: "exact",
    sequences: [sequence],
    backend: (await openFirst(parseBackendList("scalar"), {})).backend,
    write: async () => {},
    numerics: {
      prepare: async (backend, plan, layer) => {
        const session = await prepareExactSoftmax(backend, plan);
        if (layer > 0) return session;
        widths = { q: plan.headDim, k: plan.headDim, v: plan.valueDim };
        const [absorb, emit] = [session.absorb.bind(session), session.emit.bind(session)];
        return Object.assign(session, {
          absorb: async (k: Tile, v: Tile) => {
            add("k", k);
            add("v", v);
            await absorb(k, v);
          },
          emit: async (q: Tile, own?: OwnRows | null) => {
            add("q", q);
            return await emit(q, own);
          },
        });
      },
    },
  });
  const inputs = (["q", "k", "v"] as const).flatMap((role) => {
    const [rows, width] = [captured[role], widths[role]];
    const heads = rows[0].length / width;
    const value = (i: number) =>
      rows[Math.floor(i / width) % rows.length][Math.floor(i / (width * rows.length)) * width + i % width];
    writeFileSync(path(`${name}-${role}.npy`), npyBytes([heads, rows.length, width], value));
    return [`--${role}`, path(`${name}-${role}.npy`)];
  });
  const tokens = path(`${name}-tokens.npy`);
  writeFileSync(tokens, npyBytes([sequence.length], (i) => sequence.tokens![i]));
  const settings = ["-m", "256", "--projection", "orthogonal", "--seed", "3", "--backend", "scalar", "--json"];
  const measured = await performer(["attend", ...inputs, "--causal", "--features", "hyperbolic", ...settings]);
  const { error } = JSON.parse(measured.stdout);
  const [weights, , ...config] = model(name);
  const drifted = await performer(["drift", weights, tokens, ...config, "--features", "hyperbolic", ...settings]);
  const [{ attention }]: Layer[] = JSON.parse(drifted.stdout).layers;
  const [{ relativeL2, uniformBaseline, skill }] = attention.results;
  expect(error.relativeL2.value).toBeGreaterThan(0.05);
  expect(relativeL2 / error.relativeL2.value).toBeCloseTo(1, 5);
  expect(uniformBaseline / error.uniformBaseline).toBeCloseTo(1, 5);
  expect(skill).toBeCloseTo(error.skill, 5);
  expect(attention.phi / error.phi).toBeCloseTo(1, 5);
});

test("run: logits of softmax transformers, inside a report that says what attention is", async () => {
  for (const [name, ...flags] of [["roberta", "--mask", of("roberta", "mask.npy")], ["gpt2"]]) {
    const out = path(`${name}.npy`);
    const { code, stdout, stderr } = await performer(
      ["run", ...model(name), ...flags, "-o", out, "--backend", "scalar", "--output-dtype", "f64"],
    );
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain("exact softmax attention");
    const [made, wanted] = [out, of(name, "logits.npy")].map((file) => readNpyBytes(readFileSync(file)));
    expect(made.shape).toEqual(wanted.shape);
    expect(Math.max(...made.data.map((value, i) => Math.abs(value - wanted.data[i])))).toBeLessThan(1e-9);
  }
});

test("inspect: what can be run, and what must be told", async () => {
  const { stdout } = await performer(["inspect", of("gpt2", "model.safetensors"), "--json"]);
  expect(JSON.parse(stdout).model).toMatchObject({ family: "gpt2", kernel: "exact-softmax", reason: null, extra: [] });
  const llama = await performer(["inspect", of("llama", "model.safetensors")]);
  expect(llama.stdout).toContain("must be told num_attention_heads");
  expect(llama.stdout).toContain("performer drift");
});

describe("what cannot be measured is refused", () => {
  const file = (name: string, text: string | Uint8Array) => {
    writeFileSync(path(name), text);
    return path(name);
  };
  const [weights, tokens] = model("gpt2");
  test.each<[string, () => string[], number, string]>([
    [
      "tokens outside the vocabulary",
      () => [weights, file("big.npy", npyBytes([4], () => 67))],
      3,
      "outside the 67 tokens",
    ],
    ["a sequence that is too long", () => [weights, file("long.npy", npyBytes([49], () => 1))], 3, "at most 48"],
    [
      "a mask of another length",
      () => [weights, tokens, "--mask", file("short.npy", npyBytes([3], () => 1))],
      3,
      "mask",
    ],
    ["a model that is none", () => [tokens, tokens], 3, "Cannot recognise"],
    ["a file that is not there", () => [path("absent.safetensors"), tokens], 3, "absent"],
    ["a configuration that is no JSON", () => [weights, tokens, "--config", file("bad.json", "{")], 3, "expected JSON"],
    ["heads that nobody told", () => model("llama").slice(0, 2), 2, "num_attention_heads"],
    ["features of its own", () => [weights, tokens, "--features", "own"], 2, "softmax transformer"],
    ["an unknown map", () => [weights, tokens, "--features", "hyperbolc"], 2, "did you mean hyperbolic"],
    ["an odd number of paired features", () => [weights, tokens, "-m", "15"], 2, "even number"],
    ["a layer it does not have", () => [weights, tokens, "--layer", "7"], 2, "2 layers"],
    ["no layer", () => [weights, tokens, "--layer", "first"], 2, "expected all, a layer"],
    ["a report of unknown form", () => [weights, tokens, "-o", path("report.txt")], 2, ".json, .csv or .md"],
    ["numerics it does not have", () => [weights, tokens], 2, "exact-softmax"],
  ])("%s", async (name, args, code, words) => {
    const command = name === "numerics it does not have"
      ? ["run", ...args(), "--compat", "lucidrains"]
      : ["drift", ...args()];
    const outcome = await performer([...command, "--backend", "scalar"]);
    expect([outcome.code, outcome.stderr]).toEqual([code, expect.stringContaining(words)]);
    expect(outcome.stderr).not.toContain("bug in performer");
    expect(existsSync(path("report.txt"))).toBeFalse();
  });
});
