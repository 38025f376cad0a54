/** PyTorch checkpoints against what torch itself says is in the fixtures (tests/fixtures/torch/make.py). */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { InputError } from "../../src/errors.ts";
import type { Container } from "../../src/formats/container.ts";
import { openContainer } from "../../src/formats/mod.ts";
import { allRows, fixture, rejection } from "./support.ts";

interface Expected {
  readonly tensors: Record<string, { shape: number[]; sha256: string; values: (number | string)[] }>;
  readonly wrapper?: string;
}
const expected: Record<string, Expected> = JSON.parse(readFileSync(fixture("torch/expected.json"), "utf8"));
const files = readdirSync(fixture("torch")).filter((name) => name.endsWith(".pt"));

async function hashOf(container: Container, name: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of container.bytes(name)) hash.update(piece);
  return hash.digest("hex");
}

test.each(files)("%s holds what torch put in, bit for bit", async (file) => {
  await using container = await openContainer(fixture(`torch/${file}`));
  const { tensors, wrapper } = expected[file];
  expect(container.format).toBe("torch");
  expect(container.metadata.wrapper).toEqual(wrapper as string);
  const readable = container.members.filter(({ dtype }) => dtype !== null);
  expect(readable.map(({ name }) => name)).toEqual(Object.keys(tensors));
  for (const [name, { shape, sha256, values }] of Object.entries(tensors)) {
    expect(container.member(name).shape).toEqual(shape);
    expect([name, await hashOf(container, name)]).toEqual([name, sha256]);
    const whole = await container.readAll(name, "f64");
    expect(whole.shape).toEqual(shape);
    expect([...whole.data.slice(0, 8)].map(String)).toEqual(values.map(String));
    const numbers: number[] = [];
    for await (const piece of container.numbers(name)) numbers.push(...piece);
    expect(numbers.map(String)).toEqual([...whole.data].map(String));
    if (shape.length === 0 || shape.includes(0) || shape.length > 4) continue;
    await using rows = await container.open(name, { layout: "lhd" });
    expect(await allRows(rows, 2)).toEqual([...whole.data]);
  }
});

test("names of one storage, transposed and repeated tensors are told", async () => {
  await using container = await openContainer(fixture("torch/views_zip.pt"));
  const member = (name: string) => container.member(name);
  expect(member("again")).toMatchObject({ storage: member("whole").storage, sameAs: "whole" });
  expect(member("slice").storage).toBe(member("whole").storage);
  expect(member("slice").sameAs).toBeUndefined();
  expect(member("transposed")).toMatchObject({ order: "F" });
  expect(member("transposed").strides).toBeUndefined();
  expect(member("expanded").strides).toEqual([0, 1]);
  expect(member("slice").byteLength).toBe(4 * 5 * 4);
});

test.each(["zip", "legacy"])("what stands beside the model is metadata, training is left out (%s)", async (tag) => {
  await using container = await openContainer(fixture(`torch/wrapped_${tag}.pt`));
  const { metadata } = container;
  expect(metadata).toMatchObject({
    wrapper: "model_state_dict",
    epoch: "3",
    best: "0.25",
    note: "é",
    losses: "[1,0.5]",
    hparams: '{"dim":4,"heads":[1,2],"name":"x"}',
    dtype: '"torch.float16"',
    size: "[2,3]",
  });
  expect(metadata.left_out.split(", ")).toEqual(
    expect.arrayContaining(["optimizer_state_dict", "rng_state", "numpy_rng", "python_rng"]),
  );
  expect(metadata.never_called).toContain("numpy.core.multiarray._reconstruct");
});

test("several models keep their keys", async () => {
  await using container = await openContainer(fixture("torch/parts.pt"));
  expect(container.metadata).toEqual({
    "cell.wrapper": "state_dict",
    "cell.config": '{"dim":0,"kind":"performer"}',
    "gene.wrapper": "state_dict",
    "gene.config": '{"dim":1,"kind":"performer"}',
    "rde.wrapper": "state_dict",
    "rde.config": '{"dim":2,"kind":"performer"}',
  });
});

describe("what is no plain tensor", () => {
  test.each([
    ["c", "torch.ComplexFloatStorage"],
    ["s", "torch._utils._rebuild_sparse_tensor"],
    ["o", "builtins.complex"],
  ])("%s is refused by name only when it is asked for", async (name, typeName) => {
    await using container = await openContainer(fixture("torch/unreadable.pt"));
    expect(container.member(name)).toMatchObject({ dtype: null });
    const error = await rejection(container.readAll(name));
    expect(error).toBeInstanceOf(InputError);
    expect(error.message).toContain(`tensor "${name}"`);
    expect(error.message).toContain(typeName.split(".").at(-1)!);
  });
});
