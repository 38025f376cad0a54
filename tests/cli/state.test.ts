/** `performer state`, and `attend` with `--state-in` and `--state-out`. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { zipOf } from "../formats/torch_made.ts";
import { inside, npyBytes, performer, readNpyBytes, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const SCALAR = ["--backend", "scalar"];
const [ROWS, HEADS, WIDTH] = [90, 2, 8];

beforeAll(() => {
  const npy = (phase: number, cols = HEADS * WIDTH) => npyBytes([ROWS, cols], (i) => 0.6 * wave(i + phase));
  const members = ["q", "k", "v"].map((name, i) => ({ name: `${name}.npy`, data: npy(5000 * i) }));
  for (const { name, data } of members) writeFileSync(path(name), data);
  writeFileSync(path("qkv.npz"), zipOf(members));
  writeFileSync(path("wide.npy"), npy(1, 4 * WIDTH));
  writeFileSync(path("mask.npy"), npyBytes([ROWS], (i) => i % 9 === 4 ? 0 : 1 + i % 2));
});
afterAll(remove);

const ATTENTION = ["--heads", String(HEADS), "-m", "32"];
const read = (name: string) => readNpyBytes(new Uint8Array(readFileSync(path(name)))).data;
const ok = async (...args: string[]) => {
  const { code, stdout, stderr } = await inside([...args, "--json"]);
  expect([stderr, code]).toEqual(["", 0]);
  return JSON.parse(stdout);
};
const attend = (...args: string[]) => ok("attend", path("qkv.npz"), ...SCALAR, ...args);
const build = (...args: string[]) => ok("state", "build", ...args, ...SCALAR);
const refusal = async (...args: string[]) => {
  const { code, stderr } = await inside(args);
  return { code, stderr: stderr.replaceAll(`${path("")}/`, "") };
};
/** Outputs of float32 files: each is rounded once. */
const near = (actual: readonly number[], expected: readonly number[]) => {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, at) => expect(Math.abs(value - expected[at])).toBeLessThan(1e-7));
};

describe.each(Object.keys(RUNTIMES))("%s", (runtime) => {
  const run = async (...args: string[]) => {
    const { code, stdout, stderr } = await performer([...args, "--json"], { runtime });
    expect([stderr, code]).toEqual(["", 0]);
    return JSON.parse(stdout);
  };

  test("a causal file in two runs is the file in one; the state is appended to in place", async () => {
    const state = path(`${runtime}.safetensors`);
    const part = (rows: string, out: string, ...args: string[]) => {
      return run(
        "attend",
        path("qkv.npz"),
        "--causal",
        "--rows",
        rows,
        "--state-out",
        state,
        "-o",
        path(out),
        ...SCALAR,
        ...args,
      );
    };
    const first = await part("0:37", "first.npy", ...ATTENTION);
    expect(first.state).toEqual({ in: null, out: { path: state, rows: 37, keys: 37 } });
    expect(first.error.rowsChecked).toBe(37);
    const second = await part("37:", "second.npy", "--state-in", state);
    expect(second.state.in).toEqual({ path: state, rows: 37, keys: 37 });
    expect(second.state.out).toEqual({ path: state, rows: 90, keys: 90 });
    expect([second.error, second.warnings.map(({ code }: { code: string }) => code)]).toEqual([null, [
      "keys-in-state",
    ]]);
    expect(second.attention).toMatchObject({ features: "hyperbolic", numFeatures: 32, seed: 0 });
    await attend("--causal", ...ATTENTION, "-o", path("whole.npy"));
    near([...read("first.npy"), ...read("second.npy")], read("whole.npy"));
  });

  test("states of parts are built, merged, looked at and attended to", async () => {
    const name = (part: string) => path(`${runtime}_${part}.safetensors`);
    for (const [part, rows] of [["a", ":50"], ["b", "50:"]]) {
      await run("state", "build", path("qkv.npz"), ...ATTENTION, "--rows", rows, "-o", name(part), ...SCALAR);
    }
    const merged = await run("state", "merge", name("a"), name("b"), "-o", name("ab"));
    expect(merged.states).toMatchObject([{ path: name("ab"), rows: 90, keys: 90 }]);
    expect(merged.inputs).toEqual([name("a"), name("b")]);
    const info = await run("state", "info", name("ab"));
    expect(info).toMatchObject({ fingerprint: merged.fingerprint, settings: merged.settings, states: merged.states });
    expect(info.states[0].bytes).toBe(readFileSync(name("ab")).length);
    // Queries of the first part see its own keys and those of the second.
    await run("attend", path("qkv.npz"), "--rows", ":50", "--state-in", name("b"), "-o", path("half.npy"), ...SCALAR);
    await attend(...ATTENTION, "--centre", "off", "-o", path("all.npy"));
    near(read("half.npy"), read("all.npy").slice(0, 50 * HEADS * WIDTH));
  });
});

describe("build", () => {
  test("the same state makes the same bytes, on both runtimes", async () => {
    const bytes = async (runtime: string) => {
      const out = path("same.safetensors");
      // Maps without exponentials: those of the runtimes may differ in the last bit.
      await performer(["state", "build", path("qkv.npz"), ...ATTENTION, "--features", "relu", "-o", out, ...SCALAR], {
        runtime,
      });
      return readFileSync(out);
    };
    const [first, ...others] = await Promise.all([await bytes("bun"), await bytes("bun"), await bytes("deno")]);
    for (const other of others) expect(other.equals(first)).toBe(true);
  });

  test("keys and values alone, with a mask, and more keys for an old state", async () => {
    const keys = ["--k", path("k.npy"), "--v", path("v.npy"), "--mask", path("mask.npy")];
    const masked = await build(...keys, ...ATTENTION, "-o", path("masked.safetensors"));
    expect(masked.states).toMatchObject([{ rows: 90, keys: 80 }]);
    await build(...keys, ...ATTENTION, "--rows", ":40", "-o", path("old.safetensors"));
    const more = await build(
      ...keys,
      "--rows",
      "40:",
      "--state-in",
      path("old.safetensors"),
      "-o",
      path("new.safetensors"),
    );
    expect(more).toMatchObject({ fingerprint: masked.fingerprint, states: [{ rows: 90, keys: 80 }] });
  });

  test("fitted maps: states of one fit merge, others are refused with the way out", async () => {
    const fitted = ["--features", "hyp-aderf", "-m", "32", "--heads", "2"];
    const [one, two, alone] = ["one", "two", "alone"].map((name) => path(`${name}.safetensors`));
    const first = await build(path("qkv.npz"), ...fitted, "--rows", ":30", "-o", one);
    expect(first.settings.params).toEqual({ source: "sample:4096", rows: 30, centred: false });
    await build("--k", path("k.npy"), "--v", path("v.npy"), "--rows", "30:", "--like", one, "-o", two);
    expect((await ok("state", "merge", one, two, "-o", path("fit.safetensors"))).states[0].rows).toBe(90);
    await build(path("qkv.npz"), ...fitted, "--rows", "30:60", "-o", alone);
    const { code, stderr } = await refusal("state", "merge", one, alone, "-o", path("no.safetensors"));
    expect([code, stderr.includes("--like"), stderr.includes("fitted to other rows")]).toEqual([3, true, true]);
  });

  test("a given W is part of the state: the same one may be named again, another may not", async () => {
    writeFileSync(path("W.npy"), npyBytes([16, WIDTH], (i) => 2 * wave(i)));
    writeFileSync(path("V.npy"), npyBytes([16, WIDTH], (i) => 2 * wave(i + 1)));
    const given = ["--projection-matrix", path("W.npy"), "--heads", "2", "--centre", "off"];
    await build(path("qkv.npz"), ...given, "--rows", ":50", "-o", path("given.safetensors"));
    const go = ["--state-in", path("given.safetensors"), "--rows", "50:"];
    await attend(...go, "--projection-matrix", path("W.npy"), "-o", path("rest.npy"));
    await attend(...given, "-o", path("given.npy"));
    near(read("rest.npy"), read("given.npy").slice(50 * HEADS * WIDTH));
    const { code, stderr } = await refusal("attend", path("qkv.npz"), ...go, "--projection-matrix", path("V.npy"));
    expect([code, stderr.includes("--projection-matrix")]).toEqual([2, true]);
  });

  test("a stream of rows, and hybrid features", async () => {
    const input = new Uint8Array(readFileSync(path("k.npy")));
    const args = [
      "state",
      "build",
      "-",
      "--heads",
      "2",
      "--features",
      "hybrid",
      "-m",
      "24",
      "-o",
      path("hybrid.safetensors"),
    ];
    const { code, stderr } = await performer([...args, "-q"], { input });
    expect([stderr, code]).toEqual(["", 0]);
    const one = await ok("attend", path("k.npy"), "--state-in", path("hybrid.safetensors"), "--rows", ":1", ...SCALAR);
    expect(one.state.in).toMatchObject({ rows: 90, keys: 90 });
  });

  test("decay: parts in their order continue each other", async () => {
    const decay = ["--decay", "alibi", ...ATTENTION];
    for (const [name, rows] of [["d0", ":40"], ["d1", "40:70"]]) {
      await build(path("qkv.npz"), ...decay, "--rows", rows, "-o", path(`${name}.safetensors`));
    }
    await ok("state", "merge", path("d0.safetensors"), path("d1.safetensors"), "-o", path("d.safetensors"));
    await attend("--causal", "--state-in", path("d.safetensors"), "--rows", "70:", "-o", path("tail.npy"));
    await attend("--causal", ...decay, "-o", path("decayed.npy"));
    near(read("tail.npy"), read("decayed.npy").slice(70 * HEADS * WIDTH));
  });
});

describe("blocks and windows", () => {
  test("one state per block, one per window, which answers as the rows in it do", async () => {
    const blocks = path("blocks"), windows = path("windows");
    const built = await build(path("qkv.npz"), ...ATTENTION, "--block-rows", "16", "-o", blocks);
    expect(built.states.map(({ rows }: { rows: number }) => rows)).toEqual([16, 16, 16, 16, 16, 10]);
    const slid = await ok("state", "slide", blocks, "--blocks", "3", "-o", windows);
    expect(slid.states.map(({ rows }: { rows: number }) => rows)).toEqual([48, 48, 48, 42]);
    expect(readdirSync(windows).sort()).toEqual(readdirSync(blocks).sort().slice(2));
    // The window of blocks 1 to 3 is rows 16 to 63.
    const { states: [whole] } = await build(
      path("qkv.npz"),
      ...ATTENTION,
      "--rows",
      "16:64",
      "-o",
      path("w.safetensors"),
    );
    expect(whole.rows).toBe(48);
    const answer = async (state: string, out: string) => {
      await attend("--state-in", state, "--rows", "0:5", "-o", path(out));
      return read(out);
    };
    near(await answer(slid.states[1].path, "a.npy"), await answer(path("w.safetensors"), "b.npy"));
    const merged = await ok("state", "merge", blocks, "-o", path("blocks.safetensors"));
    expect([merged.states[0].rows, merged.inputs.length]).toEqual([90, 6]);
    const { stderr } = await refusal(
      "state",
      "build",
      path("qkv.npz"),
      ...ATTENTION,
      "--block-rows",
      "40",
      "-o",
      blocks,
    );
    expect(stderr).toContain('"blocks/000003.safetensors" would lie among them');
    for (const folder of ["q.npy", "q.npy/more"]) {
      const args = ["state", "build", path("qkv.npz"), ...ATTENTION, "--block-rows", "40", "-o", path(folder)];
      const { code, stderr } = await refusal(...args);
      expect([code, stderr.includes(`Cannot write "${folder}"`)]).toEqual([2, true]);
    }
  });
});

describe("refusals", () => {
  beforeAll(async () => {
    await build(path("qkv.npz"), ...ATTENTION, "-o", path("s.safetensors"));
    await build(path("qkv.npz"), ...ATTENTION, "--seed", "4", "-o", path("other.safetensors"));
    mkdirSync(path("empty"));
  });

  test.each([
    [
      ["--features", "positive", "--seed", "3"],
      "--features is positive, the state has hyperbolic; --seed is 3, the state has 0; leave them out",
    ],
    [["-m", "64"], "--num-features is 64, the state has 32"],
    [["--scale", "1"], "--scale is 1, the state has 0.35355339059327373"],
    [["--causal", "--decay", "1"], "--decay is 1, the state has none"],
    [["--params", "file"], "--params is file, the state has fixed"],
    [["--centre", "on"], "--centre is on, the state has off"],
    [["--projection", "iid"], "--projection is iid, the state has orthogonal"],
    [["--compat", "lucidrains"], "--compat is lucidrains, the state has exact"],
    [["--kv-heads", "1"], "--kv-heads is 1, the state has 2"],
    [["--window", "8"], "--window needs keys"],
    [["--check", "16"], "exact softmax needs its 90 keys"],
    [["--max-error", "5%"], "Cannot use --max-error with --state-in"],
    [["--health"], "Cannot use --health with --state-in"],
    [["--heads", "1"], "queries 16: they must agree"],
    [["--state-out", "s.npy"], "its name must end in .safetensors"],
  ])("attend --state-in with %p", async (args, words) => {
    const { code, stderr } = await refusal("attend", path("qkv.npz"), "--state-in", path("s.safetensors"), ...args);
    expect(stderr).toContain(words);
    expect(code).toBe(2);
  });

  test("flags that agree with the state are taken", async () => {
    const agreed = [
      "--features",
      "hyperbolic",
      "-m",
      "32",
      "--seed",
      "0",
      "--check",
      "0",
      "--centre",
      "off",
      "--kv-heads",
      "2",
    ];
    await attend("--state-in", path("s.safetensors"), "--heads", "2", ...agreed);
  });

  test.each([
    [["--features", "softmax"], "exact attention needs all its keys again"],
    [["--features", "cosformer"], "it needs the length of the sequence first"],
    [["--features", "none"], "without attention there is none"],
    [["--features", "auto"], "name a feature map"],
    [["--window", "8"], "near keys and far fields need their keys again"],
    [["--shrink", "0.5"], "it does not hold the mean of the values"],
    [["--compat", "lucidrains"], "cannot be continued"],
  ])("attend --state-out with %p", async (args, words) => {
    const { code, stderr } = await refusal(
      "attend",
      path("qkv.npz"),
      "--heads",
      "2",
      "--state-out",
      path("x.safetensors"),
      ...args,
    );
    expect(stderr).toContain(words);
    expect(code).toBe(2);
  });

  test.each([
    [
      ["merge", "s.safetensors", "other.safetensors", "-o", "x.safetensors"],
      'seed is 4, expected 0 as in "s.safetensors"',
      3,
    ],
    [["merge", "s.safetensors", "s.safetensors", "-o", "x.safetensors"], "the very same rows", 2],
    [["merge", "-o", "x.safetensors"], "Missing FILE", 2],
    [["merge", "s.safetensors"], "Missing -o", 2],
    [["merge", "s.safetensors", "-o", "x.npy"], "must end in .safetensors", 2],
    [["merge", "empty", "-o", "x.safetensors"], "no file in it ends in .safetensors", 3],
    [
      ["merge", "s.safetensors", "-o", "x.safetensors", "--blocks", "2"],
      "--blocks with state merge: it is of state slide",
      2,
    ],
    [["merge", "q.npy/more", "-o", "x.safetensors"], "Cannot read", 3],
    [["info"], "Cannot look at 0 states", 2],
    [["info", "q.npy"], "it is no state but tensors (npy)", 3],
    [["info", "s.safetensors", "-o", "x.safetensors"], "--output with state info", 2],
    [["slide", "empty", "-o", "y"], "Missing --blocks", 2],
    [["slide", "s.safetensors", "--blocks", "2", "-o", "y"], "name one folder", 2],
    [["build", "-o", "x.safetensors"], "Missing INPUT", 2],
    [["build", "qkv.npz"], "Missing -o", 2],
    [
      ["build", "qkv.npz", "-o", "x.safetensors", "--like", "s.safetensors", "--seed", "1"],
      "--seed is 1, the state has 0",
      2,
    ],
    [
      ["build", "qkv.npz", "-o", "x.safetensors", "--like", "s.safetensors", "--state-in", "s.safetensors"],
      "leave --like out",
      2,
    ],
    [["build", "wide.npy", "-o", "x.safetensors", "--like", "s.safetensors"], "the inputs have 16 columns", 2],
    [["bild"], "did you mean build?", 2],
  ])("state %p", async (args, words, wanted) => {
    const files = args.map((word) => /^(\w+\.\w+(\/\w+)?|empty|y)$/.test(word) ? path(word) : word);
    const { code, stderr } = await refusal("state", ...files);
    expect(stderr).toContain(words);
    expect(code).toBe(wanted);
  });

  test("the same rows twice, where that is meant", async () => {
    const twice = [path("s.safetensors"), path("s.safetensors"), "--allow-duplicates", "-o", path("twice.safetensors")];
    expect((await ok("state", "merge", ...twice)).states[0]).toMatchObject({ rows: 180, keys: 180 });
  });
});

test("the reports for people, and a dry run that writes nothing", async () => {
  await build(path("qkv.npz"), ...ATTENTION, "-o", path("p.safetensors"));
  const text = async (...args: string[]) => (await inside(args)).stdout.replaceAll(`${path("")}/`, "");
  const info = await text("state", "info", path("p.safetensors"));
  expect(info).toContain("p.safetensors · 90 rows, 90 keys");
  expect(info).toContain("2 key heads × 8 · scale 0.354");
  const report = await text("attend", path("qkv.npz"), "--state-in", path("p.safetensors"), ...SCALAR);
  expect(report).toContain("goes on from p.safetensors · 90 rows, 90 keys");
  expect(report).toContain("not measured");
  const before = readdirSync(path("")).sort();
  const dry = ["--state-in", path("p.safetensors"), "--state-out", path("n.safetensors"), "--dry-run"];
  expect(await text("attend", path("qkv.npz"), ...dry, ...SCALAR)).toContain("are not read again");
  expect(readdirSync(path("")).sort()).toEqual(before);
});

test("what is configured of attention in general yields to the state, but for a limit that would go unheard", async () => {
  await build(path("qkv.npz"), ...ATTENTION, "-o", path("c.safetensors"));
  const args = ["attend", path("qkv.npz"), "--state-in", path("c.safetensors"), ...SCALAR, "--json"];
  const env = { PERFORMER_FEATURES: "softmax", PERFORMER_CHECK: "16", PERFORMER_SEED: "9" };
  const { code, stdout } = await performer(args, { env });
  expect([code, JSON.parse(stdout).attention.features, JSON.parse(stdout).attention.seed]).toEqual([
    0,
    "hyperbolic",
    0,
  ]);
  expect((await performer(args, { env: { PERFORMER_MAX_ERROR: "5%" } })).stderr).toContain("Cannot use --max-error");
});
