/** `attend` with near keys and far fields, `--features auto` and `--shrink`, as a process. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { RandomStream } from "../../src/random.ts";
import { inside, npyBytes, performer, readNpyBytes, ROOT, RUNTIMES, scratch } from "./process.ts";

const { path, remove } = scratch();
const L = 400, D = 16;
/** Rows of the long causal file, beyond the 256 that `--features auto` decides by. */
const LONG = 700;
/** Rows of it that `late.npy` shares. */
const SHARED = 610;

/** Rows that follow each other closely: row i = 0.95 · row (i − 1) + noise, of variance `spread`². */
function walk(rows: number, cols: number, seed: number, spread: number): Float32Array {
  const random = new RandomStream(seed);
  const data = new Float32Array(rows * cols);
  for (let at = 0; at < data.length; at++) {
    data[at] = (at < cols ? 0 : 0.95 * data[at - cols]) + Math.sqrt(1 - 0.95 ** 2) * spread * random.normal();
  }
  return data;
}

beforeAll(() => {
  const write = (name: string, cols: number, data: Float32Array) =>
    writeFileSync(path(name), npyBytes([data.length / cols, cols], (i) => data[i]));
  write("walk.npy", D, walk(L, D, 1, 2));
  // A few keys that many queries look at, anywhere in the file; queries and values know nothing of rows.
  const random = new RandomStream(2);
  const normals = (rows: number, cols: number, spread: (row: number) => number) =>
    Float32Array.from({ length: rows * cols }, (_, i) => spread(Math.floor(i / cols)) * random.normal());
  write("q.npy", D, normals(L, D, () => 1.5));
  write("heavy.npy", D, normals(L, D, (row) => row % 25 === 7 ? 5 : 0.3));
  write("v.npy", D, normals(L, D, () => 1));
  for (const name of ["hard_q.npy", "hard_k.npy"]) write(name, D, normals(L, D, () => 2.5));
  // Four query heads share two key heads; more keys than queries; a mask.
  write("q4.npy", 4 * D, normals(150, 4 * D, () => 1));
  write("k2.npy", 2 * D, normals(220, 2 * D, () => 1));
  write("v2.npy", 2 * 6, normals(220, 2 * 6, () => 1));
  write("mask.npy", 1, Float32Array.from({ length: 220 }, (_, j) => [1, 0, 2, 0.5][j % 4]));
  write("zeros.npy", 1, new Float32Array(220));
  write("one.npy", D, normals(1, D, () => 1));
  write("none.npy", D, new Float32Array(0));
  const long = walk(LONG, D, 3, 1.5);
  write("long.npy", D, long);
  write("late.npy", D, long.map((x, i) => i < SHARED * D ? x : 40 * x + 1));
});
afterAll(remove);

/** A file as an array of its own: small Buffers of node:fs share one. */
const bytesOf = (name: string) => new Uint8Array(readFileSync(name));

const WASM = ["--backend", "wasm"];
const GROUPED = [
  "--q",
  path("q4.npy"),
  "--k",
  path("k2.npy"),
  "--v",
  path("v2.npy"),
  "--heads",
  "4",
  "--kv-heads",
  "2",
];

async function report(...args: string[]) {
  const { code, stdout, stderr } = await inside(["attend", ...WASM, "--json", ...args]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

const errorOf = async (...args: string[]): Promise<number> => (await report(...args)).error.relativeL2.value;

/** What `attend -o FILE` writes. */
async function output(...args: string[]): Promise<Uint8Array> {
  const { code, stdout, stderr } = await inside(["attend", "--check", "0", "-q", "-o", path("output.npy"), ...args]);
  expect([code, stdout, stderr]).toEqual([0, "", ""]);
  return bytesOf(path("output.npy"));
}

describe.each(Object.keys(RUNTIMES))("reports on %s", (runtime) => {
  test("say what was near, what the far field was fitted to, and how large the error is", async () => {
    const args = ["attend", path("walk.npy"), ...WASM, "--window", "16", "--heavy", "4"];
    const { code, stdout, stderr } = await performer([...args, "--far", "clusters:20", "--top", "2"], { runtime });
    expect([code, stderr]).toEqual([0, ""]);
    expect(stdout).toContain(
      "features     window 16, 4 heavy keys, the keys of the top 2 clusters exactly; far field 20 clusters, " +
        "fitted to 400 rows (sample), seed 0\n",
    );
    const { attention, error } = JSON.parse((await performer([...args, "--causal", "--json"], { runtime })).stdout);
    expect(attention).toMatchObject({
      features: "taylor1",
      numFeatures: null,
      projection: null,
      seed: null,
      causal: true,
      shrink: null,
      chosen: false,
      nearFar: {
        window: 16,
        heavy: 4,
        far: "taylor1",
        clusters: 0,
        top: 0,
        exactRows: 0,
        fit: { source: "none", rows: 0 },
      },
    });
    expect(error.skill).toBeGreaterThan(0.9);
  });

  test("--features auto names its choice", async () => {
    const { code, stdout } = await performer(["attend", path("walk.npy"), ...WASM, "--features", "auto", "--json"], {
      runtime,
    });
    expect(code).toBe(0);
    const { attention, error } = JSON.parse(stdout);
    expect(attention.chosen).toBeTrue();
    expect(attention.nearFar).not.toBeNull();
    expect(error.skill).toBeGreaterThan(0.9);
  });
});

describe("errors", () => {
  test("fall as the window widens, where near rows matter", async () => {
    for (const mode of [[], ["--causal"]]) {
      const errors: number[] = [];
      for (const w of ["0", "8", "32", "128"]) errors.push(await errorOf(path("walk.npy"), "--window", w, ...mode));
      for (let i = 1; i < errors.length; i++) expect(errors[i]).toBeLessThan(errors[i - 1]);
      expect(errors[3]).toBeLessThan(0.5 * errors[0]);
    }
  });

  test("fall with the number of heavy keys, where a few keys matter to all queries", async () => {
    const files = ["--q", path("q.npy"), "--k", path("heavy.npy"), "--v", path("v.npy")];
    const errors: number[] = [];
    for (const h of ["0", "4", "8", "16"]) errors.push(await errorOf(...files, "--heavy", h));
    for (let i = 1; i < errors.length; i++) expect(errors[i]).toBeLessThan(errors[i - 1]);
    expect(errors[3]).toBeLessThan(0.1 * errors[0]); // every 25th key of 400 is large
  });

  test("vanish when every key is near", async () => {
    // Logits are up to about 2^6 here; float32 rounds them by 2^-24 of that, and weights by as much.
    const rounding = 2 ** (6 + 1 - 24) * 4;
    const cases = [
      ["--window", "400"],
      ["--window", "400", "--causal", "--far", "taylor2"],
      ["--window", "999999999999"],
      ["--heavy", "400", "--far", "hermite2"],
      ["--heavy", "9999999", "--far", "none"],
      ["--window", "400", "--far", "clusters:8"],
      ["--far", "clusters:1000", "--causal"], // the prefix that centroids need is all there is
    ];
    for (const args of cases) expect(await errorOf(path("walk.npy"), ...args)).toBeLessThan(rounding);
    expect(await errorOf(...GROUPED, "--window", "220", "--mask", path("mask.npy"))).toBeLessThan(rounding);
    const top = ["--far", "clusters:7", "--top", "7", "--backend", "scalar"];
    for (const mode of [[], ["--causal"]]) expect(await errorOf(path("walk.npy"), ...top, ...mode)).toBeLessThan(1e-12);
  });
});

describe("outputs", () => {
  const settings = [
    ["--window", "9", "--heavy", "3", "--far", "hermite2"],
    ["--far", "clusters:10", "--top", "2"],
    ["--window", "5", "--shrink", "0.7"],
  ];

  test("do not depend on tiles", async () => {
    for (const some of [settings[0], [...settings[1], "--causal"], settings[2], [...settings[2], "--causal"]]) {
      const args = [path("walk.npy"), "--backend", "scalar", "--output-dtype", "f64", ...some];
      const whole = readNpyBytes(await output(...args)).data;
      const cut = readNpyBytes(await output(...args, "--tile", "7")).data;
      // Sums over 400 rows in another order; values are about 2.
      expect(Math.max(...whole.map((x, i) => Math.abs(x - cut[i])))).toBeLessThan(400 * 2 ** -52 * 2 * 16);
    }
  });

  test("of a pipe are those of the file, read as it flows or not, and -o FILE holds the same bytes", async () => {
    const input = bytesOf(path("walk.npy"));
    for (const some of [[...settings[0], "--causal"], ["--features", "auto"]]) {
      const args = [...WASM, ...some];
      const { out } = await performer(["attend", "-", "--check", "0", "-q", "-o", "-", ...args], { input });
      const [piped, kept] = [readNpyBytes(out), readNpyBytes(await output(path("walk.npy"), ...args))];
      expect(kept).toMatchObject({ descr: "<f4", shape: [L, D] });
      // Tiles of a stream may be cut elsewhere: float32 sums in another order.
      piped.data.forEach((x, i) => expect(Math.abs(x - kept.data[i])).toBeLessThan(1e-4));
    }
  });

  for (const runtime of Object.keys(RUNTIMES)) {
    test(`${runtime}: causal rows are blind to later ones, to the last bit`, async () => {
      const kinds = runtime === "deno" ? [settings[1], ["--features", "auto"]] : [...settings, ["--features", "auto"]];
      for (const some of kinds) {
        const rows = async (name: string) => {
          const args = [
            "attend",
            path(name),
            ...WASM,
            "--causal",
            "-q",
            "--check",
            "0",
            "-o",
            "-",
            ...some,
          ];
          const { code, out } = await performer(args, { runtime });
          expect(code).toBe(0);
          return readNpyBytes(out).data;
        };
        const [before, after] = [await rows("long.npy"), await rows("late.npy")];
        expect(after.slice(0, SHARED * D)).toEqual(before.slice(0, SHARED * D));
        expect(after.slice(SHARED * D)).not.toEqual(before.slice(SHARED * D));
      }
    });
  }

  test("float16 in, float16 out; a float64 file keeps float64", async () => {
    const head = join(ROOT, "tests/fixtures/heads/masked_layer0");
    const files = ["q", "k", "v"].flatMap((name) => [`--${name}`, join(head, `${name}.npy`)]);
    const out = readNpyBytes(await output(...files, ...WASM, "--window", "32"));
    expect([out.descr, out.shape]).toEqual(["<f2", [2, 600, 64]]);
    expect(out.data.every(Number.isFinite)).toBeTrue();
  });
});

describe("few rows", () => {
  test("one row answers with its value, whatever the setting; auto says that exact attention costs least", async () => {
    const value = readNpyBytes(bytesOf(path("one.npy"))).data;
    const kinds = [
      "--window 4 --heavy 4",
      "--window 4 --heavy 4 --causal",
      "--far clusters:8 --top 2 --causal",
      "--features auto",
      "--shrink auto",
    ];
    for (const some of kinds.map((words) => words.split(" "))) {
      const { data } = readNpyBytes(await output(path("one.npy"), ...WASM, ...some));
      // Random features: exp(·) in float32 divided by itself.
      data.forEach((x, i) => expect(Math.abs(x - value[i])).toBeLessThan(1e-5));
    }
    const { stdout } = await inside(["attend", path("one.npy"), ...WASM, "--features", "auto"]);
    expect(stdout).toContain("exact softmax (chosen: at this length nothing takes less arithmetic)");
  });

  test("no rows: an empty output", async () => {
    for (const words of ["--window 4 --heavy 4", "--far clusters:8", "--features auto --shrink auto"]) {
      const some = words.split(" ");
      expect(readNpyBytes(await output(path("none.npy"), ...WASM, ...some))).toMatchObject({ shape: [0, D], data: [] });
    }
  });

  test("a mask that removes every key: zeros, and a warning", async () => {
    for (const words of ["--window 9 --heavy 3", "--far clusters:8", "--features auto", "--shrink auto"]) {
      const args = [...GROUPED, "--mask", path("zeros.npy"), "-o", path("zero_out.npy"), ...words.split(" ")];
      const { warnings } = await report(...args);
      expect(warnings.map(({ code }: { code: string }) => code)).toContain("empty-rows");
      expect(readNpyBytes(bytesOf(path("zero_out.npy"))).data.every((x) => x === 0)).toBeTrue();
    }
  });
});

describe("shrinkage", () => {
  test("auto on hopeless data is no worse than the mean of V", async () => {
    const files = ["--q", path("hard_q.npy"), "--k", path("hard_k.npy"), "--v", path("v.npy"), "-m", "32"];
    const plain = await report(...files);
    const shrunk = await report(...files, "--shrink", "auto", "--redraws", "2");
    expect(plain.error.skill).toBeLessThan(-0.1);
    expect(shrunk.error.skill).toBeGreaterThan(-0.02); // λ comes from other rows of the same input
    expect(shrunk.attention.shrink.length).toBe(1);
    for (const sample of shrunk.error.redraws.samples) expect(sample).toBeLessThan(1.1 * shrunk.error.uniformBaseline);
  });

  test("0 is the mean of V, 1 changes nothing, and auto --causal says that it looks ahead", async () => {
    const zero = await report(path("walk.npy"), "--shrink", "0");
    expect(Math.abs(zero.error.skill)).toBeLessThan(1e-6); // the mean in float32
    const args = [path("walk.npy"), ...WASM, "--window", "8"];
    expect(await output(...args, "--shrink", "1")).toEqual(await output(...args));
    const codes = async (...more: string[]) =>
      (await report(...args, ...more)).warnings.map(({ code }: { code: string }) => code);
    expect(await codes("--causal", "--shrink", "auto")).toContain("fitted-ahead");
    expect(await codes("--causal", "--shrink", "0.9")).not.toContain("fitted-ahead");
    expect(await codes("--shrink", "auto")).not.toContain("fitted-ahead");
    const kept = await report(path("walk.npy"), "--features", "auto", "--shrink", "0.5");
    expect(kept.attention.shrink).toEqual([0.5]);
  });
});

describe("auto on trained heads", () => {
  for (const [name, mode] of [["masked_layer0", []], ["causal_layer0", ["--causal"]]] as const) {
    test(`${name}: at most 0.15 of the error of as much arithmetic in positive features`, async () => {
      const folder = join(ROOT, "tests/fixtures/heads", name);
      const files = ["q", "k", "v"].flatMap((tensor) => [`--${tensor}`, join(folder, `${tensor}.npy`)]);
      const auto = await report(...files, ...mode, "--features", "auto");
      const positive = await report(...files, ...mode, "--features", "positive", "-m", "256");
      expect(auto.error.relativeL2.value).toBeLessThan(0.15 * positive.error.relativeL2.value);
      expect(auto.flops).toBeLessThanOrEqual(positive.flops);
    });
  }
});

describe("a backend that opens but does not take the attention", () => {
  const args = ["attend", path("walk.npy"), "--far", "clusters:8", "--top", "2"];
  for (const runtime of Object.keys(RUNTIMES)) {
    test(`${runtime}: a list goes on to the next and says why, a single name is refused`, async () => {
      const alone = await performer([...args, "--backend", "webgpu"], { runtime });
      expect([alone.code, alone.stdout]).toEqual([4, ""]); // no adapter, or no kernels for --top
      const reason = alone.stderr.trim().split(" is not available: ")[1];
      const listed = await performer([...args, "--backend", "webgpu,wasm", "--json"], { runtime });
      expect(listed.code).toBe(0);
      const { backend } = JSON.parse(listed.stdout);
      expect(backend.name).toBe("wasm");
      expect(backend.refused).toEqual([{ name: "webgpu", reason }]);
    }, 60_000);
  }

  test("compare's auto takes one that does all lines", async () => {
    const compare = [
      "compare",
      path("walk.npy"),
      "-m",
      "8",
      "--features",
      "positive",
      "--far",
      "clusters:8",
      "--top",
      "2",
    ];
    const auto = JSON.parse((await inside([...compare, "--json"])).stdout);
    expect(auto.rows.some(({ nearFar }: { nearFar: unknown }) => nearFar !== null)).toBeTrue();
  });
});

test("wrong wishes are refused with a way out", async () => {
  const wrong: [args: string[], code: number, words: string][] = [
    [["--window", "8", "--max-error", "1%", "--check", "0"], 2, "leave --check 0 out"],
    [["--features", "auto", "--max-error", "1%", "--check", "0"], 2, "leave --check 0 out"],
    [["--features", "auto", "--window", "8"], 2, "it chooses near keys and the far field itself"],
    [["--features", "auto", "--redraws", "2"], 2, "name the features"],
    [["--shrink", "1,1"], 2, "the queries have 1 head"],
    [["--shrink", "2"], 2, "expected auto, a number from 0"],
    [["--window", "-1"], 2, "expected a whole number of at least 0"],
    [["--window", "8", "--backend", "gpujs"], 4, "no kernels for near keys and far fields; webgpu, wasm, scalar have"],
    [["--far", "none", "--heavy", "0"], 2, "give --window W or --heavy H"],
  ];
  for (const [args, code, words] of wrong) {
    const outcome = await inside(["attend", path("walk.npy"), ...args]);
    expect([args, outcome.code]).toEqual([args, code]);
    expect(outcome.stderr).toContain(words);
  }
  const over = await inside(["attend", path("walk.npy"), ...WASM, "-q", "--window", "1", "--max-error", "0.1%"]);
  expect([over.code, over.stderr]).toEqual([1, expect.stringContaining("exceeds --max-error 0.001")]);
  const alone = await report(path("walk.npy"), "--causal", "--far", "none", "--heavy", "3");
  expect(alone.warnings.find(({ code }: { code: string }) => code === "empty-rows").remedy).toContain("--window 1");
});
