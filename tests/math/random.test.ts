/** Random numbers: known answers, accuracy of the portable functions, streams, and the same matrices on both runtimes. */
import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { portableLog, portableTurn, RandomStream, threefry2x32 } from "../../src/random.ts";
import { Sample } from "./harness.ts";
import { erf } from "./oracles.ts";
import { projectionHashes } from "./projection_hash.ts";

test("threefry-2x32-20 gives the known answers of Random123 (kat_vectors)", () => {
  const hex = ([a, b]: [number, number]) => [a, b].map((word) => word.toString(16).padStart(8, "0")).join(" ");
  expect(hex(threefry2x32([0, 0], [0, 0]))).toBe("6b200159 99ba4efe");
  expect(hex(threefry2x32([0xffffffff, 0xffffffff], [0xffffffff, 0xffffffff]))).toBe("1cb996fc bb002be7");
  expect(hex(threefry2x32([0x13198a2e, 0x03707344], [0x243f6a88, 0x85a308d3]))).toBe("c4923a9c 483df7a0");
});

describe("portable functions, against integers of 200 bits", () => {
  const BITS = 200n, ONE = 1n << BITS;

  /** x · 2²⁰⁰, exact for |x| ≥ 2⁻¹⁴⁸. */
  function fixed(x: number): bigint {
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, Math.abs(x));
    const word = view.getBigUint64(0);
    const exponent = (word >> 52n) - 1075n + BITS;
    const mantissa = (word & ((1n << 52n) - 1n)) | (1n << 52n);
    const value = x === 0 ? 0n : exponent >= 0n ? mantissa << exponent : mantissa >> -exponent;
    return x < 0 ? -value : value;
  }

  /** |approximate − exact| in units of the last place of `exact`. */
  function ulps(approximate: number, exact: bigint): number {
    const size = Math.abs(Number(exact)) / 2 ** 200;
    const gap = fixed(approximate) - exact;
    return gap === 0n ? 0 : Math.abs(Number(gap)) / 2 ** 200 / 2 ** (Math.floor(Math.log2(size)) - 52);
  }

  /** Σ (±1)ᵏ s^{2k+1}/(2k+1): artanh s (sign 1) or arctan s (sign −1). */
  function arc(s: bigint, sign: bigint): bigint {
    let power = s, sum = 0n;
    for (let k = 1n; power !== 0n; k += 2n) {
      sum += power / k;
      power = sign * ((power * s >> BITS) * s >> BITS);
      if (power === -1n) break; // >> rounds down: −1 never becomes 0
    }
    return sum;
  }
  const LN2 = 2n * arc(ONE / 3n, 1n);
  const PI = 16n * arc(ONE / 5n, -1n) - 4n * arc(ONE / 239n, -1n);

  function logarithm(x: number): bigint {
    let mantissa = x, exponent = 0n;
    for (; mantissa >= 2; mantissa /= 2) exponent++;
    for (; mantissa < 1; mantissa *= 2) exponent--;
    const m = fixed(mantissa);
    return exponent * LN2 + 2n * arc((m - ONE) * ONE / (m + ONE), 1n);
  }

  /** cos (first = 0) or sin (first = 1) of 2πt. */
  function turn(t: number, first: bigint): bigint {
    const x = 2n * PI * fixed(t) >> BITS;
    let term = first === 0n ? ONE : x, sum = 0n;
    for (let n = first + 1n; term !== 0n && term !== -1n; n += 2n) {
      sum += term;
      term = -((term * x >> BITS) * x >> BITS) / (n * (n + 1n));
    }
    return sum;
  }

  test("portableLog is within 2.5 ulp", () => {
    expect(portableLog(1)).toBe(0);
    const random = new RandomStream(51);
    let worst = 0;
    const hard = [2 ** -53, 1 - 2 ** -53, 1 + 2 ** -52, 0.5, Math.SQRT1_2, Math.SQRT2, 0.7072, 1e-300, 5e-324, 1.7e308];
    for (let i = 0; i < 4000; i++) {
      const x = hard[i] ?? (i % 2 ? random.uniform() : 2 ** (200 * random.uniform() - 100));
      worst = Math.max(worst, ulps(portableLog(x), logarithm(x)));
    }
    expect(worst).toBeLessThan(2.5);
  });

  test("portableTurn is within 2.5 ulp", () => {
    expect([0, 0.25, 0.5, 0.75].map((t) => portableTurn(t).map((value) => value + 0))).toEqual([
      [1, 0],
      [0, 1],
      [-1, 0],
      [0, -1],
    ]);
    const random = new RandomStream(52);
    let worst = 0;
    for (let i = 0; i < 3000; i++) {
      const t = i % 3 ? random.uniform() : (i % 4) / 4 + random.uniform() * 2 ** (-3 - i % 40);
      const [cos, sin] = portableTurn(t);
      worst = Math.max(worst, ulps(cos, turn(t, 0n)), ulps(sin, turn(t, 1n)));
    }
    expect(worst).toBeLessThan(2.5);
  });
});

describe("streams", () => {
  const numbers = (stream: RandomStream, n = 6) => Array.from({ length: n }, () => stream.uniform());

  test("a seed and a path name a stream, whatever else was drawn", () => {
    const expected = numbers(new RandomStream(9, 1, 2));
    const other = new RandomStream(9, 1);
    other.normals(101);
    expect(numbers(new RandomStream(9, 1, 2))).toEqual(expected);
    const streams = [[9], [9, 1], [9, 2], [9, 1, 2], [9, 2, 1], [9, 12], [9, 1, 2, 0], [9, 0, 1, 2], [10, 1, 2], [
      9 + 2 ** 32,
      1,
      2,
    ]];
    const heads = streams.map(([seed, ...path]) => numbers(new RandomStream(seed, ...path)).join());
    expect(new Set(heads).size).toBe(streams.length);
  });

  test("neighbouring streams are uncorrelated, and a normal's odd half is not lost between calls", () => {
    const product = new Sample();
    for (let path = 0; path < 200; path++) {
      const [a, b] = [new RandomStream(53, path), new RandomStream(53, path + 1)].map((stream) => stream.normals(100));
      a.forEach((value, i) => product.add(value * b[i]));
    }
    expect(Math.abs(product.z(0))).toBeLessThan(4.5);
    const one = new RandomStream(54), many = new RandomStream(54);
    expect(Array.from({ length: 7 }, () => one.normal())).toEqual([...many.normals(7)]);
  });

  test("normals have the moments and the distribution function of N(0, 1)", () => {
    const values = new RandomStream(55).normals(200_000).sort();
    const powers = [1, 2, 3, 4].map(() => new Sample());
    for (const value of values) powers.forEach((sample, p) => sample.add(value ** (p + 1)));
    [0, 1, 0, 3].forEach((moment, p) => expect(Math.abs(powers[p].z(moment))).toBeLessThan(4.5));
    let gap = 0; // Kolmogorov–Smirnov; exceeds 2.2/√n once in ten thousand samples
    values.forEach((value, i) =>
      gap = Math.max(gap, Math.abs((i + 0.5) / values.length - 0.5 * (1 + erf(value / Math.SQRT2))))
    );
    expect(gap * Math.sqrt(values.length)).toBeLessThan(2.2);
  });

  test("uniforms lie in [0, 1), whole numbers below n are even", () => {
    const stream = new RandomStream(56);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 70_000; i++) counts[stream.below(7)]++;
    expect(counts.reduce((sum, count) => sum + (count - 10_000) ** 2 / 10_000, 0)).toBeLessThan(27.9); // χ²₆, p = 1e−4
    for (const value of numbers(stream, 1000)) expect(value >= 0 && value < 1).toBe(true);
  });

  test("seeds that are not whole numbers below 2⁵³ are refused", () => {
    for (const seed of [-1, 0.5, 2 ** 53, NaN, Infinity]) expect(() => new RandomStream(seed)).toThrow(RangeError);
    expect(() => new RandomStream(2 ** 53 - 1)).not.toThrow();
  });
});

describe("projection matrices", () => {
  // Changing a hash changes every result that was reported with a seed.
  const EXPECTED = [
    "7b001c1d6b1a8784b773efa7033280726dba3f1c9891fc76f7b875c30de014a9", // orthogonal, iid
    "4736598ddbe734d403b1c6b3ae29c02f7aabc11727268b14e45d7c9081fd76db", // hadamard
    "e486b26e9dfbc1b16ba0338422408ca627fad3a39a2b2968f282ed4386c11c09", // givens, simplex
    "7301985e98817c86e38eb9b5e5e6ab4c5813cf29c84a3bc6f2f399db2f537a25", // sobol
  ];
  const deno = fileURLToPath(new URL("../../node_modules/.bin/deno", import.meta.url));

  test("are the ones of this version", () => {
    expect(projectionHashes()).toEqual(EXPECTED);
  });

  test.skipIf(!existsSync(deno))("are the same on Deno, bit for bit", () => {
    const script = fileURLToPath(new URL("projection_hash.ts", import.meta.url));
    const { stdout, stderr, status } = spawnSync(deno, ["run", "--no-check", script], { encoding: "utf8" });
    expect({ status, stdout: stdout.trim().split("\n") }, stderr).toEqual({ status: 0, stdout: EXPECTED });
  });
});
