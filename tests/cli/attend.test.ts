import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { npyBytes, performer, readNpyBytes, RUNTIMES, scratch, wave } from "./process.ts";

const { path, remove } = scratch();
const SCALAR = ["--backend", "scalar"];

beforeAll(() => {
  writeFileSync(path("x.npy"), npyBytes([300, 32], (i) => 0.6 * wave(i)));
  writeFileSync(path("ones.npy"), npyBytes([50, 8], () => 1));
});
afterAll(remove);

describe.each(Object.keys(RUNTIMES))("on %s", (runtime) => {
  test("attend prints throughput, error, baseline and skill", async () => {
    const { code, stdout, stderr } = await performer(["attend", path("x.npy"), "--heads", "2", ...SCALAR], { runtime });
    expect(stderr).toBe("");
    expect(code).toBe(0);
    for (const words of ["300 rows × 2 heads × 16", "tokens/s", "relative L2", "uniform baseline", "skill", "peak"]) {
      expect(stdout).toContain(words);
    }
  });

  test("--json prints one object with the stable keys", async () => {
    const { code, stdout } = await performer(["attend", path("x.npy"), "--json", ...SCALAR], { runtime });
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(Object.keys(report)).toEqual(expect.arrayContaining([
      "schema",
      "command",
      "backend",
      "input",
      "attention",
      "seconds",
      "tokensPerSecond",
      "flops",
      "peakBytes",
      "error",
      "warnings",
    ]));
    expect(report.backend.name).toBe("scalar");
    expect(report.input).toMatchObject({ rows: 300, heads: 1, headDim: 32, valueDim: 32, bytes: 300 * 32 * 4 });
    expect(report.error.rowsChecked).toBe(256);
    expect(report.error.relativeL2.low).toBeLessThanOrEqual(report.error.relativeL2.value);
    expect(report.peakBytes).toBeGreaterThan(10e6);
    expect(report.peakBytes).toBeLessThan(2e9);
  });

  test("a tensor piped through stdin and stdout keeps stdout clean", async () => {
    const input = npyBytes([40, 8], wave);
    const { code, out, stderr } = await performer(["attend", "-", "-o", "-", "--json", ...SCALAR], { runtime, input });
    expect(code).toBe(0);
    expect(readNpyBytes(out).shape).toEqual([40, 8]);
    expect(JSON.parse(stderr).output.path).toBe("stdout");
  });

  test("interrupted: says so, leaves no partial output, exits 130", async () => {
    writeFileSync(path("long.npy"), npyBytes([60_000, 64], wave));
    const before = readdirSync(path("."));
    const { code, stderr } = await performer(["attend", path("long.npy"), "-o", path("long_out.npy"), ...SCALAR], {
      runtime,
      during: (child) => {
        // The output's temporary file is there once rows are computed.
        const looking = setInterval(() => {
          if (readdirSync(path(".")).length === before.length) return;
          clearInterval(looking);
          child.kill("SIGINT");
        }, 20);
        child.on("close", () => clearInterval(looking));
      },
    });
    expect(stderr).toContain("stopping");
    expect(code).toBe(130);
    expect(readdirSync(path("."))).toEqual(before);
  });
});

test("Bun and Deno write the same output", async () => {
  for (const runtime of Object.keys(RUNTIMES)) {
    await performer(["attend", path("x.npy"), "--causal", "-q", "-o", path(`${runtime}.npy`), ...SCALAR], { runtime });
  }
  const [bun, deno] = ["bun", "deno"].map((runtime) => readNpyBytes(readFileSync(path(`${runtime}.npy`))));
  expect(bun.shape).toEqual([300, 32]);
  const far = bun.data.filter((value, i) => Math.abs(value - deno.data[i]) > 1e-6 * Math.abs(value) + 1e-9);
  expect(far).toEqual([]); // Math.exp differs by one ulp between the runtimes
});

test("constant values come back as they are", async () => {
  const { code, out } = await performer(["attend", path("ones.npy"), "-q", "-o", "-", ...SCALAR]);
  expect(code).toBe(0);
  expect(readNpyBytes(out).data.every((value) => Math.abs(value - 1) < 1e-6)).toBe(true);
});

test("--output-dtype, .npz and .safetensors outputs", async () => {
  for (const dtype of ["f64", "f16"]) {
    const { out } = await performer(["attend", path("ones.npy"), "-q", "--output-dtype", dtype, "-o", "-", ...SCALAR]);
    expect(readNpyBytes(out).descr).toBe(dtype === "f64" ? "<f8" : "<f2");
  }
  for (const name of ["o.npz", "o.safetensors"]) {
    expect((await performer(["attend", path("x.npy"), "-q", "-o", path(name), ...SCALAR])).code).toBe(0);
    const { stdout } = await performer(["inspect", path(name), "--json"]);
    expect(JSON.parse(stdout).tensors).toEqual([{
      name: "out",
      dtype: "f32",
      shape: [300, 32],
      order: "C",
      bytes: 38400,
    }]);
  }
});

test("--max-error decides the exit code", async () => {
  const run = (limit: string) => performer(["attend", path("x.npy"), "--max-error", limit, ...SCALAR]);
  expect((await run("200%")).code).toBe(0);
  const { code, stderr } = await run("0.000001");
  expect(code).toBe(1);
  expect(stderr).toContain("--max-error");
});

test("--redraws reports an interval over draws", async () => {
  for (const direction of [[], ["--causal"]]) {
    const { stdout } = await performer(["attend", path("x.npy"), "--redraws", "3", "--json", ...direction, ...SCALAR]);
    const { redraws, relativeL2 } = JSON.parse(stdout).error;
    expect(redraws.samples).toHaveLength(3);
    expect(new Set(redraws.samples).size).toBe(3);
    expect(redraws.low).toBeLessThan(redraws.value);
    expect(Math.abs(Math.log(redraws.value / relativeL2.value))).toBeLessThan(Math.log(3));
  }
});

test("exact softmax has no error to report", async () => {
  const { stdout } = await performer(["attend", path("x.npy"), "--features", "softmax", "--json", ...SCALAR]);
  expect(JSON.parse(stdout)).toMatchObject({ error: null, attention: { features: "softmax", numFeatures: null } });
});

test("where there is no skill the report says so in words and what to try", async () => {
  const parts = ["q", "k", "v"].flatMap((name, i) => {
    writeFileSync(path(`${name}.npy`), npyBytes([400, 64], (at) => 1.7 * wave(at + 25_600 * i)));
    return [`--${name}`, path(`${name}.npy`)];
  });
  const { code, stdout } = await performer(["attend", ...parts, ...SCALAR]);
  expect(code).toBe(0);
  expect(stdout).toContain("no better than");
  expect(stdout).toContain("Try ");
});

test("rows, tiles and seeds: a slice is its own problem, tiles change nothing, seeds do", async () => {
  const run = async (...flags: string[]) => {
    return readNpyBytes(
      (await performer(["attend", path("x.npy"), "-q", "-o", "-", "--output-dtype", "f64", ...flags, ...SCALAR])).out,
    );
  };
  const [whole, tiled, seeded] = [await run(), await run("--tile", "7"), await run("--seed", "1")];
  expect(Math.max(...whole.data.map((value, i) => Math.abs(value - tiled.data[i])))).toBeLessThan(1e-12);
  expect(whole.data).not.toEqual(seeded.data);
  expect((await run("--rows", "-100:")).shape).toEqual([100, 32]);
  expect((await run("--rows", "10:20")).shape).toEqual([10, 32]);
});

test("masks act on the keys", async () => {
  const mask = Uint8Array.from(npyBytes([300], (i) => i < 100 ? 1 : 0));
  writeFileSync(path("mask.npy"), mask);
  writeFileSync(path("head.npy"), npyBytes([100, 32], (i) => 0.6 * wave(i)));
  const masked = await performer(["attend", path("x.npy"), "--mask", path("mask.npy"), "-q", "-o", "-", ...SCALAR]);
  const short = await performer([
    "attend",
    "--q",
    path("x.npy"),
    "--k",
    path("head.npy"),
    "--v",
    path("head.npy"),
    "-q",
    "-o",
    "-",
    ...SCALAR,
  ]);
  expect(readNpyBytes(masked.out)).toEqual(readNpyBytes(short.out));
});

test("FASTA through the k-mer encoder", async () => {
  const { code, stdout } = await performer([
    "attend",
    "examples/data/lambda_virus.fa",
    "--encode",
    "kmer:6",
    "--rows",
    "0:3000",
    "--json",
    ...SCALAR,
  ]);
  expect(code).toBe(0);
  const report = JSON.parse(stdout);
  expect(report.input).toMatchObject({ rows: 3000, headDim: 64, encoding: "kmer:6" });
  expect(report.error.skill).toBeGreaterThan(0.5);
});

test("empty and single-row inputs", async () => {
  writeFileSync(path("none.npy"), npyBytes([0, 8], wave));
  writeFileSync(path("one.npy"), npyBytes([1, 8], wave));
  for (const direction of [[], ["--causal"]]) {
    const none = await performer(["attend", path("none.npy"), "-o", path("none_out.npy"), ...direction, ...SCALAR]);
    expect(none.code).toBe(0);
    expect(readNpyBytes(readFileSync(path("none_out.npy"))).shape).toEqual([0, 8]);
    const one = await performer(["attend", path("one.npy"), "-q", "-o", "-", ...direction, ...SCALAR]);
    expect(readNpyBytes(one.out).data.map(Math.fround)).toEqual(readNpyBytes(npyBytes([1, 8], wave)).data);
  }
});

test("csv and md carry the same figures as json", async () => {
  const run = async (format: string) =>
    (await performer(["attend", path("ones.npy"), "--format", format, ...SCALAR])).stdout;
  const [header, values] = (await run("csv")).trim().split("\n").map((line) => line.split(","));
  expect(header.length).toBe(values.length);
  expect(values[header.indexOf("rows")]).toBe("50");
  expect(await run("md")).toContain("| rows | 50 |");
});

test("nothing is left behind by a finished run", () => {
  expect(readdirSync(path(".")).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  expect(existsSync(path("long_out.npy"))).toBe(false);
});

test("one pass over a pipe equals the same file, is not spooled for rows in order, and notices its end", async () => {
  const rows = npyBytes([3000, 16], wave); // more than the 64 KiB that are kept
  const heads = npyBytes([2, 1500, 16], wave);
  writeFileSync(path("rows.npy"), rows);
  writeFileSync(path("heads.npy"), heads);
  const flags = ["--causal", "--check", "0", "-q", "-o", "-", ...SCALAR];
  for (const [name, input] of [["rows.npy", rows], ["heads.npy", heads]] as const) {
    const file = await performer(["attend", path(name), ...flags]);
    const pipe = await performer(["attend", "-", ...flags], { input });
    expect(pipe.stderr).toBe("");
    expect(pipe.out).toEqual(file.out);
  }
  const short = await performer(["attend", "-", ...flags], { input: rows.slice(0, 100_000) });
  expect(short.code).toBe(3);
  expect(short.stderr).toContain("ends at byte 100000");
});
