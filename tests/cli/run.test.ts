/** `run`, `inspect` of models and `attend --compat` as processes. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openContainer } from "../../src/formats/mod.ts";
import { npyBytes, performer, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const golden = (name: string, file: string) => join(ROOT, "tests/golden", name, file);
const ATTENTION = ["q", "k", "v"];

async function numbers(file: string): Promise<{ shape: readonly number[]; data: ArrayLike<number> }> {
  await using container = await openContainer(file);
  return await container.readAll(undefined, "f64");
}

/** Largest distance between two files of one shape. */
async function apart(file: string, other: string): Promise<number> {
  const [a, b] = [await numbers(file), await numbers(other)];
  expect(a.shape).toEqual(b.shape);
  return Math.max(...Array.from(a.data, (value, i) => Math.abs(value - b.data[i])));
}

describe.each(Object.keys(RUNTIMES))("%s", (runtime) => {
  test("a batch with a mask: logits of performer-pytorch, and a report that splits the work", async () => {
    const of = (file: string) => golden("lm/masked_batch2", file);
    const out = path(`logits-${runtime}.npy`);
    const files = ["--config", of("config.json"), "--mask", of("mask.npy"), "-o", out];
    const { code, stdout, stderr } = await performer(
      ["run", of("model.pt"), of("tokens.npy"), ...files, "--backend", "wasm", "--json"],
      { runtime },
    );
    expect([code, stderr]).toEqual([0, ""]);
    const report = JSON.parse(stdout);
    expect(report.model).toMatchObject({ family: "performer-lm", versions: "1.0.9 … 1.1.4", rules: "lucidrains" });
    expect(report.output.shape).toEqual([2, 64, 50]);
    for (const part of ["attention", "feedForward", "other"]) expect(report.flops[part]).toBeGreaterThan(0);
    expect(await apart(out, of("logits.npy"))).toBeLessThan(1e-5);
  });

  test("an encoder and a decoder with cross attention, a masked context: logits of a torch program", async () => {
    const of = (file: string) => join(ROOT, "tests/fixtures/enc_dec", file);
    const out = path(`enc-dec-${runtime}.npy`);
    const args = ["run", of("model.pt"), of("target.npy"), "-o", out, "--output-dtype", "f64"];
    const context = ["--context", of("source.npy"), "--context-mask", of("source_mask.npy")];
    for (const [backend, bound] of [["scalar", 1e-12], ["wasm", 2e-5]] as const) {
      const { code } = await performer([...args, ...context, "--backend", backend], { runtime });
      expect(code).toBe(0);
      expect(await apart(out, of("logits.npy"))).toBeLessThan(bound);
    }
    const unmasked = await performer([...args, ...context.slice(0, 2), "--backend", "scalar"], { runtime });
    expect(unmasked.code).toBe(0);
    expect(await apart(out, of("logits.npy"))).toBeGreaterThan(1e-3);
    const alone = await performer(args, { runtime });
    expect([alone.code, alone.stderr]).toEqual([2, expect.stringContaining("the tokens of its encoder")]);
  });

  test("encodings, and a causal model that is told to leak or not to", async () => {
    const of = (file: string) => golden("lm/rotary_glu_scalenorm_causal", file);
    const out = path(`encodings-${runtime}.npy`);
    const args = [
      "run",
      of("model.pt"),
      of("tokens.npy"),
      "--config",
      of("config.json"),
      "-o",
      out,
      "--backend",
      "scalar",
    ];
    const leaking = await performer([...args, "--encodings"], { runtime });
    expect([leaking.code, leaking.stdout]).toEqual([0, expect.stringContaining("lucidrains-causal")]);
    expect(await apart(out, of("encodings.npy"))).toBeLessThan(1e-5);
    const blind = await performer([...args, "--compat", "lucidrains-causal"], { runtime });
    expect([blind.code, blind.stdout]).toEqual([0, expect.not.stringContaining("warning")]);
    expect(await apart(out, of("logits.npy"))).toBeGreaterThan(1e-4);
  });

  test("a single attention layer of rows: float64 from scalar", async () => {
    for (const name of ["self_attention", "self_attention_causal"]) {
      const of = (file: string) => golden(`self_attention/${name}`, file);
      const out = path(`rows-${runtime}.npy`);
      const flags = ["--config", of("config.json"), "--backend", "scalar", "--output-dtype", "f64", "-o", out, "-q"];
      const { code, stderr } = await performer(["run", of("model.pt"), of("x.npy"), ...flags], { runtime });
      expect([code, stderr]).toEqual([0, ""]);
      expect(await apart(out, of("y_f64.npy"))).toBeLessThan(1e-9);
    }
  });

  test("attend --compat gives what performer-pytorch gives", async () => {
    for (const [name, ...flags] of [["causal_oddL", "--causal"], ["noproj_d64", "--projection", "none"]]) {
      const of = (file: string) => golden(`fast_attention/${name}`, `${file}.npy`);
      const out = path(`attend-${runtime}.npy`);
      const projection = flags.includes("none") ? [] : ["--projection-matrix", of("projection_matrix")];
      const inputs = ATTENTION.flatMap((tensor) => [`--${tensor}`, of(tensor)]);
      const where = ["--backend", "wasm", "--output-dtype", "f64", "-o", out, "--json"];
      const args = ["attend", ...inputs, "--compat", "lucidrains", ...projection, ...flags, ...where];
      const { code, stdout, stderr } = await performer(args, { runtime });
      expect([code, stderr]).toEqual([0, ""]);
      expect(JSON.parse(stdout).attention.compat).toBe("lucidrains");
      expect(await apart(out, of("out_f64"))).toBeLessThan(1e-5);
    }
  });
});

describe("what cannot be run is refused, and nothing is written", () => {
  const model = golden("lm/noproj", "model.pt");
  const out = path("refused.npy");
  const bad = (name: string, shape: number[], value: (i: number) => number) => {
    writeFileSync(path(name), npyBytes(shape, value));
    return path(name);
  };
  test.each<[string, () => string[], number, string]>([
    ["tokens outside the vocabulary", () => [model, bad("big.npy", [8], () => 50)], 3, "outside the 50 tokens"],
    ["tokens that are no whole numbers", () => [model, bad("half.npy", [8], () => 0.5)], 3, "whole numbers"],
    ["a sequence that is too long", () => [model, bad("long.npy", [300], () => 1)], 3, "at most 256"],
    ["tokens of three axes", () => [model, bad("cube.npy", [2, 2, 2], () => 1)], 3, "[2, 2, 2]"],
    [
      "a file that holds no model",
      () => [bad("none.npy", [8], () => 1), golden("lm/noproj", "tokens.npy")],
      3,
      "Cannot recognise",
    ],
    [
      "a profile without this kernel",
      () => [
        model,
        golden("lm/noproj", "tokens.npy"),
        "--config",
        golden("lm/noproj", "config.json"),
        "--compat",
        "molformer",
      ],
      2,
      "molformer",
    ],
    [
      "a configuration that contradicts the tensors",
      () => [
        golden("lm/noproj", "model.pt"),
        golden("lm/noproj", "tokens.npy"),
        "--config",
        golden("lm/reversible", "config.json"),
      ],
      3,
      "reversible",
    ],
  ])("%s", async (_, args, code, words) => {
    const outcome = await performer(["run", ...args(), "-o", out, "--backend", "scalar"]);
    expect([outcome.code, outcome.stderr]).toEqual([code, expect.stringContaining(words)]);
    expect(outcome.stderr).not.toContain("bug in performer");
    expect(existsSync(out)).toBeFalse();
  });
});

test("inspect says what a checkpoint is, and what only a configuration can tell", async () => {
  const { code, stdout } = await performer(["inspect", golden("lm/tied_shift_causal", "model.pt"), "--json"]);
  expect(code).toBe(0);
  const { model } = JSON.parse(stdout);
  expect(model).toMatchObject({ family: "performer-lm", versions: "1.1.0 … 1.1.4", rules: "lucidrains", unknown: [] });
  expect(model.architecture).toMatchObject({ dim: 64, depth: 2, heads: 4, tie_embed: true, shift_tokens: true });
  expect(model.assumed.map(({ argument }: { argument: string }) => argument)).toContain("causal");
  const words = await performer(["inspect", golden("lm/tied_shift_causal", "model.pt")]);
  expect(words.stdout).toContain("numerics     lucidrains");
});
