/** `attend` with numbers that come from the data: --params, --centre, and what the report says of them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { RandomStream } from "../../src/random.ts";
import { npyBytes, performer, readNpyBytes, scratch } from "./process.ts";

const { path, remove } = scratch();
const L = 400, D = 16, HEADS = 2;

/** Rows with means whose spread falls along the columns of each head, or rises: queries are wide where keys are narrow. */
function rows(seed: number, rising: boolean): Uint8Array {
  const random = new RandomStream(seed);
  const column = (c: number) => rising ? D - 1 - c % D : c % D;
  const spread = Array.from({ length: HEADS * D }, (_, c) => 0.1 + 1.5 * Math.exp(-column(c) / 4));
  const mean = spread.map(() => 0.6 * random.normal());
  return npyBytes([L, HEADS * D], (i) => mean[i % (HEADS * D)] + spread[i % (HEADS * D)] * random.normal());
}

beforeAll(() => {
  writeFileSync(path("q.npy"), rows(1, false));
  writeFileSync(path("k.npy"), rows(2, true));
  const random = new RandomStream(3);
  writeFileSync(path("v.npy"), npyBytes([L, HEADS * D], () => random.normal()));
  writeFileSync(path("w.npy"), npyBytes([64, D], () => random.normal()));
});
afterAll(remove);

const FILES = ["--q", path("q.npy"), "--k", path("k.npy"), "--v", path("v.npy"), "--heads", String(HEADS)];
const SCALAR = ["--backend", "scalar", "-m", "128"];

async function report(...args: string[]) {
  const { code, stdout, stderr } = await performer(["attend", ...FILES, ...SCALAR, "--json", ...args]);
  expect([code, stderr]).toEqual([0, ""]);
  return JSON.parse(stdout);
}

describe("data with means and uneven spread", () => {
  test("aderf+sderf has at most half the error of positive at as many features, re-centred or not", async () => {
    const error = async (...args: string[]) => (await report("--redraws", "5", ...args)).error.redraws.value;
    const fitted = await error("--features", "aderf+sderf");
    expect(fitted).toBeLessThan(0.5 * await error("--features", "positive"));
    expect(fitted).toBeLessThan(0.5 * await error("--features", "positive", "--centre", "off"));
    expect(fitted).toBeLessThan(await error("--features", "aderf+sderf", "--centre", "off"));
  });

  test("the report says what was fitted, to which rows, and what that did", async () => {
    const { attention, error } = await report("--features", "hyp-aderf+sderf", "--params", "sample:128");
    const { params } = attention;
    expect(params).toMatchObject({ source: "sample:128", rows: 128, centred: true });
    expect(params.heads.length).toBe(HEADS);
    for (const head of params.heads) {
      expect(head.phi).toBeLessThan(0.5 * head.phiBefore);
      expect(head.logVariance).toBeLessThan(head.phi);
      expect(head.exponents.length).toBe(D);
    }
    const mean = params.heads.reduce((sum: number, head: { phiBefore: number }) => sum + head.phiBefore, 0) / HEADS;
    expect(Math.abs(mean / error.phi - 1)).toBeLessThan(0.2); // of sampled rows both
    const { stdout } = await performer(["attend", ...FILES, ...SCALAR, "--features", "oprf"]);
    expect(stdout).toContain("fitted       to 400 rows (sample:4096) · keys re-centred");
    expect((await report("--centre", "off")).attention.params).toBeNull();
    expect((await report()).attention.params).toMatchObject({ source: "sample:4096", rows: L, centred: true });
  });

  test("neither tiles nor a given projection's centring change results", async () => {
    const output = async (...args: string[]) => {
      const { code, out } = await performer([
        ...["attend", ...FILES, ...SCALAR, "--check", "0", "-q", "-o", "-", "--output-dtype", "f64"],
        ...args,
      ]);
      expect(code).toBe(0);
      return readNpyBytes(out).data;
    };
    for (const features of ["hyperbolic", "aderf+sderf", "saderf"]) {
      const [whole, cut] = [await output("--features", features), await output("--features", features, "--tile", "37")];
      for (let i = 0; i < whole.length; i++) expect(Math.abs(cut[i] - whole[i])).toBeLessThan(1e-10);
    }
    const given = ["--projection-matrix", path("w.npy"), "--features", "positive"];
    expect(await output(...given)).toEqual(await output(...given, "--centre", "off"));
    expect(await output(...given)).not.toEqual(await output(...given, "--centre", "on"));
  });
});

describe("causal", () => {
  const causal = ["--causal", "--features", "hyp-oprf"];

  test("a prefix by default, which the report warns of; fixed numbers know no data", async () => {
    const ahead = await report(...causal);
    expect(ahead.attention.params).toMatchObject({ source: "prefix:1024", rows: L, centred: false });
    expect(ahead.warnings.map((warning: { code: string }) => warning.code)).toContain("fitted-ahead");
    const fixed = await report(...causal, "--params", "fixed");
    expect(fixed.attention.params).toMatchObject({ source: "fixed", rows: 0, centred: false });
    expect(fixed.warnings.map((warning: { code: string }) => warning.code)).not.toContain("fitted-ahead");
    expect((await report("--causal")).attention.params).toBeNull();
    const centred = await report("--causal", "--centre", "on", "--params", "prefix:50");
    expect(centred.attention.params).toMatchObject({ source: "prefix:50", rows: 50, centred: true });
  });

  test("with fixed numbers later rows change nothing, to the bit; a stream is kept where it has to be read twice", async () => {
    const one = new RandomStream(9);
    const numbers = one.normals(60 * 8);
    const bytes = (rows: number) => npyBytes([rows, 8], (i) => numbers[i]);
    const out = async (input: Uint8Array, params: string) => {
      const args = [
        "attend",
        "-",
        ...causal,
        "--params",
        params,
        "--backend",
        "scalar",
        "--check",
        "0",
        "-q",
        "-o",
        "-",
      ];
      const { code, out } = await performer(args, { input });
      expect(code).toBe(0);
      return readNpyBytes(out).data;
    };
    expect((await out(bytes(60), "fixed")).slice(0, 40 * 8)).toEqual(await out(bytes(40), "fixed"));
    expect((await out(bytes(60), "prefix:30")).slice(0, 40 * 8)).toEqual(await out(bytes(40), "prefix:30"));
    expect((await out(bytes(60), "file")).slice(0, 40 * 8)).not.toEqual(await out(bytes(40), "file"));
  });
});

test("what cannot be is refused with the way out", async () => {
  const fails = async (...args: string[]) => {
    const { code, stderr } = await performer(["attend", ...FILES, ...SCALAR, ...args]);
    expect(code).toBe(2);
    return stderr;
  };
  expect(await fails("--params", "sample")).toContain("expected fixed, file, prefix:N or sample:N");
  expect(await fails("--params", "fixed", "--centre", "on")).toContain("use sample:N");
  expect(await fails("--features", "relu", "--centre", "on")).toContain("only random features of softmax");
  expect(await fails("--features", "elu", "--params", "file")).toContain("no numbers to fit");
});
