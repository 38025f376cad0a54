/** `generate`, `attend --weights` and `run --attention` as processes. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openContainer } from "../../src/formats/mod.ts";
import { npyBytes, performer, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
afterAll(remove);

const pod = (file: string) => join(ROOT, "tests/golden/models/pod_performer", file);
const layer = (name: string, file: string) => join(ROOT, "tests/golden/self_attention", name, file);
const MODEL = [pod("model.pt"), "--config", pod("config.json")];

async function numbers(file: string): Promise<{ shape: readonly number[]; data: number[] }> {
  await using container = await openContainer(file);
  const { shape, data } = await container.readAll(undefined, "f64");
  return { shape, data: Array.from(data) };
}

function relative(found: number[], wanted: number[]): number {
  const norm = (values: number[]) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return norm(found.map((value, i) => value - wanted[i])) / norm(wanted);
}

describe.each(Object.keys(RUNTIMES))("%s", (runtime) => {
  test("greedy tokens after a file of tokens, and how far they are from the rules of training", async () => {
    const out = path(`greedy-${runtime}.npy`);
    const { code, stdout } = await performer(
      [
        "generate",
        ...MODEL,
        "--prompt",
        pod("prompt.npy"),
        "--greedy",
        "-n",
        "12",
        "-o",
        out,
        "--backend",
        "wasm",
        "--json",
      ],
      { runtime },
    );
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    const stored = await numbers(pod("greedy.npy"));
    const written = await numbers(out);
    expect(written.shape).toEqual([1, 76]);
    expect(written.data).toEqual(stored.data.slice(0, 76));
    expect(report.tokens).toEqual([stored.data.slice(64, 76)]);
    expect(report.model.rules).toBe("lucidrains-causal");
    expect(report.distance).toMatchObject({ from: "lucidrains", rows: 76 });
    expect(report.distance.relativeL2).toBeGreaterThan(0);
    expect(report.seconds.samples.length).toBe(11);
  });

  test("text goes to stdout as it is made, the same for the same seed, the report to stderr", async () => {
    const args = ["generate", ...MODEL, "--prompt", "The ", "-n", "20", "--backend", "scalar", "--check", "0"];
    const [one, two, other] = [
      await performer([...args, "--seed", "5"], { runtime }),
      await performer([...args, "--seed", "5"], { runtime }),
      await performer([...args, "--seed", "6"], { runtime }),
    ];
    expect([one.code, one.stderr]).toEqual([0, expect.stringContaining("20 tokens after 4")]);
    expect(one.stdout.length).toBeGreaterThan(5);
    expect(one.stdout).toBe(two.stdout);
    expect(one.stdout).not.toBe(other.stdout);
  });

  test("a layer of a checkpoint over rows: the output of performer-pytorch's SelfAttention, with its error", async () => {
    const name = "self_attention";
    const out = path(`layer-${runtime}.npy`);
    for (const [backend, bound] of [["scalar", 1e-9], ["wasm", 2e-5]] as const) {
      const { code, stdout, stderr } = await performer(
        [
          ...["attend", layer(name, "x.npy"), "--weights", layer(name, "model.pt"), "--backend", backend],
          ...["-o", out, "--output-dtype", "f64", "--tile", "50", "--json"],
        ],
        { runtime },
      );
      expect([code, stderr]).toEqual([0, ""]);
      const report = JSON.parse(stdout);
      expect(report.layer).toMatchObject({ index: 0 });
      expect(report.attention).toMatchObject({ compat: "lucidrains", features: "positive" });
      expect(report.error.uniformBaseline).toBeGreaterThan(0);
      const [y, wanted] = [await numbers(out), await numbers(layer(name, "y_f64.npy"))];
      expect(y.shape).toEqual(wanted.shape);
      expect(relative(y.data, wanted.data)).toBeLessThan(bound);
    }
  });

  test("attention received: as much in all as there are rows, in every layer and head", async () => {
    const of = (file: string) => join(ROOT, "tests/golden/lm/qkv_bias_out_bias", file);
    const out = path(`received-${runtime}.npy`);
    const args = ["run", of("model.pt"), of("tokens.npy"), "--config", of("config.json"), "--backend", "wasm"];
    const { code, stdout } = await performer([...args, "--attention", "received", "-o", out, "--json"], { runtime });
    expect(code).toBe(0);
    const { shape, data } = await numbers(out);
    expect(shape).toEqual([1, 2, 4, 64]);
    for (let head = 0; head < 8; head++) {
      const sum = data.slice(head * 64, (head + 1) * 64).reduce((a, b) => a + b, 0);
      expect(Math.abs(sum - 64)).toBeLessThan(1e-3);
    }
    expect(JSON.parse(stdout).attention.most.length).toBe(10);
    const top = await performer([...args, "--attention", "top:3", "--rows", "0,5", "--json"], { runtime });
    const { rows, lists } = JSON.parse(top.stdout).attention;
    expect(rows).toEqual([0, 5]);
    expect([lists.length, lists[0].length, lists[0][0].length, lists[0][0][0].length]).toEqual([1, 2, 4, 2]);
    const weights = lists[0][1][2][1].map(({ weight }: { weight: number }) => weight);
    expect(weights.length).toBe(3);
    expect(weights).toEqual([...weights].sort((a, b) => b - a));
  });
});

test("what cannot be done is refused with the way out, and nothing is written", async () => {
  const out = path("refused.npy");
  const wide = path("wide.npy");
  writeFileSync(wide, npyBytes([4, 7], () => 0));
  const x = layer("self_attention", "x.npy");
  const weights = ["--weights", layer("self_attention", "model.pt")];
  const bidirectional = join(ROOT, "tests/golden/lm/noproj");
  const crossing = join(ROOT, "tests/fixtures/enc_dec");
  const cases: [string[], number, RegExp][] = [
    [
      ["generate", ...MODEL, "--prompt", "a", "-n", "3", "-q", "-o", "/nonexistent/x.npy"],
      2,
      /no such file or directory/,
    ],
    [["generate", ...MODEL, "-o", out], 2, /Missing --prompt/],
    [
      ["generate", ...MODEL, "--prompt", "a", "--compat", "lucidrains", "-o", out],
      2,
      /lucidrains-causal or --recompute/,
    ],
    [["generate", ...MODEL, "--prompt", "", "-o", out], 3, /prompt is empty/],
    [["generate", `${bidirectional}/model.pt`, "--prompt", "x", "-o", out], 2, /50 tokens, not the 256 bytes/],
    [["generate", `${bidirectional}/model.pt`, "--prompt", `${bidirectional}/tokens.npy`, "-o", out], 2, /not causal/],
    [
      ["generate", `${crossing}/model.pt`, "--prompt", `${crossing}/target.npy`, "-o", out],
      2,
      /performer run --context/,
    ],
    [
      ["generate", `${crossing}/model.pt`, "--prompt", `${crossing}/target.npy`, "--recompute"],
      2,
      /performer run --context/,
    ],
    [["attend", x, "--layer", "1", "-o", out], 2, /without --weights/],
    [["attend", x, ...weights, "--layer", "3", "-o", out], 2, /1 layers, numbered from 0/],
    [["attend", x, ...weights, "--heads", "2", "-o", out], 2, /--heads with --weights/],
    [["attend", wide, ...weights, "-o", out], 2, /expected one sequence \[L, 64\]/],
    [
      [
        "run",
        ...MODEL.slice(0, 1),
        pod("prompt.npy"),
        "--config",
        pod("config.json"),
        "--attention",
        "received",
        "-o",
        out,
      ],
      2,
      /causal/,
    ],
    [["run", `${bidirectional}/model.pt`, `${bidirectional}/tokens.npy`, "--attention", "top:0"], 2, /top:K/],
  ];
  for (const [args, wanted, message] of cases) {
    const { code, stderr } = await performer(args);
    expect([args.join(" "), code]).toEqual([args.join(" "), wanted]);
    expect(stderr).toMatch(message);
    expect(existsSync(out)).toBeFalse();
  }
});

test("Ctrl-C stops a long text within moments, leaves no file, and an endless one is no reason to fill memory", async () => {
  const out = path("stopped.npy");
  const args = [
    "generate",
    ...MODEL,
    "--prompt",
    "The ",
    "-n",
    "1000000000",
    "--backend",
    "wasm",
    "--check",
    "0",
    "-o",
    out,
  ];
  let stopped = 0;
  const { code, stderr, stdout } = await performer(args, {
    during: (child) => {
      child.stdout!.once("data", () => {
        stopped = performance.now();
        child.kill("SIGINT");
      });
    },
  });
  expect([code, stderr]).toEqual([130, expect.stringContaining("stopping")]);
  expect(stdout.length).toBeGreaterThan(0);
  expect(performance.now() - stopped).toBeLessThan(5000); // a hang would take days
  expect(existsSync(out)).toBeFalse();
});
