/** Numbers as elements of output types: one rounding, to the nearest, ties to even. */
import { expect, test } from "bun:test";
import { encode } from "../../src/formats/encode.ts";

test("bfloat16 is the nearest of its neighbours, also where float32 would round first", () => {
  const step = 2 ** -7; // between 1 and 2
  const cases: [number, number][] = [
    [1, 1],
    [1 + step / 2, 1], // a tie, to even
    [1 + 1.5 * step, 1 + 2 * step],
    [1 + step / 2 + 2 ** -40, 1 + step], // float32 would make a tie of it
    [1 + 1.5 * step - 2 ** -40, 1 + step],
    [-(1 + step / 2 + 2 ** -40), -(1 + step)],
    [2 ** -133, 2 ** -133], // the smallest
    [2 ** -134, 0],
    [2 ** -134 * (1 + 2 ** -30), 2 ** -133],
    [-0, -0],
    [3.3895313892515355e38, 3.3895313892515355e38], // the largest
    [3.3961775292304957e38, Infinity], // half a step above
    [1e300, Infinity],
    [-Infinity, -Infinity],
    [NaN, NaN],
  ];
  const { bytes, overflows } = encode(Float64Array.from(cases, ([number]) => number), "bf16");
  const halves = new Uint16Array(bytes.buffer);
  const found = Array.from(halves, (half) => new Float32Array(Uint32Array.of(half << 16).buffer)[0]);
  expect(found).toEqual(cases.map(([, wanted]) => wanted));
  expect(overflows).toBe(2);
});

test("the other types round once too, and count what becomes infinite", () => {
  const numbers = Float64Array.of(1 / 3, 65519.99, 65520, -1e39, Infinity, NaN);
  expect(encode(numbers, "f16").overflows).toBe(2);
  expect(encode(numbers, "f32").overflows).toBe(1);
  expect(new Uint8Array(encode(numbers, "f64").bytes)).toEqual(new Uint8Array(numbers.buffer));
  expect([...new Float16Array(encode(numbers, "f16").bytes.buffer as ArrayBuffer)]).toEqual([
    ...Float16Array.from(numbers),
  ]);
});
