/** The numbers of a checkpoint, read when they are needed and looked at before they are used. */
import type { Backend, Linear } from "../backend.ts";
import { InputError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import type { LinearPlan } from "../plan.ts";
import { type FloatArray, floats, type Precision } from "../tensor.ts";
import { Activated, isHostActivation } from "./activations.ts";
import type { DenseActivation, DenseLayout, NormLayout } from "./description.ts";

/** A norm with its numbers. */
export type Norm =
  | { readonly kind: "layer"; readonly weight: FloatArray; readonly bias: FloatArray; readonly epsilon: number }
  | { readonly kind: "rms"; readonly weight: FloatArray; readonly epsilon: number }
  | { readonly kind: "scale"; readonly g: number }
  | { readonly kind: "rezero"; readonly g: number };

/** Reads tensors of an open file in the precision of a backend. */
export class Weights {
  constructor(readonly container: Container, readonly precision: Precision) {}

  /** All numbers of a tensor. Throws InputError naming it when one is NaN or infinite. */
  async tensor(name: string, precision: Precision = this.precision): Promise<FloatArray> {
    const { data, shape } = await this.container.readAll(name, precision);
    const at = data.findIndex((value) => !Number.isFinite(value));
    if (at >= 0) {
      throw new InputError(
        `Cannot run "${this.container.path}": tensor "${name}" holds ${data[at]} at [${position(at, shape)}]`,
      );
    }
    return data;
  }

  async norm(layout: NormLayout): Promise<Norm> {
    if (layout.kind === "scale" || layout.kind === "rezero") {
      const [g] = await this.tensor(layout.g, "f64");
      return { kind: layout.kind, g };
    }
    const weight = await this.tensor(layout.weight, "f64");
    if (layout.kind === "rms") return { ...layout, weight };
    return { ...layout, weight, bias: await this.tensor(layout.bias, "f64") };
  }

  /** W `outputs × inputs` and b of a dense layer. */
  async dense(layout: DenseLayout): Promise<Pick<LinearPlan, "weight" | "bias">> {
    const { weight, bias, inputs, outputs, firstRow, transposed } = layout;
    const all = await this.tensor(weight);
    return {
      weight: transposed ? transposedRows(all, layout) : all.subarray(firstRow * inputs, (firstRow + outputs) * inputs),
      bias: bias === null ? null : (await this.tensor(bias)).subarray(firstRow, firstRow + outputs),
    };
  }

  /** A dense layer on a backend; `rows` takes some of its outputs only. */
  async linear(
    backend: Backend,
    layout: DenseLayout,
    tileRows: number,
    options: {
      readonly activation?: LinearPlan["activation"] | DenseActivation;
      readonly rows?: readonly [number, number];
    } = {},
  ): Promise<Linear> {
    const { activation = "none", rows: [from, to] = [0, layout.outputs] } = options;
    const { weight, bias } = await this.dense({ ...layout, firstRow: layout.firstRow + from, outputs: to - from });
    const host = isHostActivation(activation);
    const linear = await backend.prepareLinear({
      inputs: layout.inputs,
      outputs: to - from,
      weight,
      bias,
      activation: host ? "none" : activation,
      tileRows,
    });
    return host ? new Activated(linear, activation) : linear;
  }
}

/** Rows `firstRow …` of the transpose of a tensor with `inputs` rows. */
function transposedRows(all: FloatArray, { inputs, outputs, firstRow }: DenseLayout): FloatArray {
  const cols = all.length / inputs;
  const rows = floats(all instanceof Float64Array ? "f64" : "f32", outputs * inputs);
  for (let l = 0; l < inputs; l++) {
    for (let o = 0; o < outputs; o++) rows[o * inputs + l] = all[l * cols + firstRow + o];
  }
  return rows;
}

function position(at: number, shape: readonly number[]): string {
  const places: number[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    places.unshift(at % shape[axis]);
    at = Math.floor(at / shape[axis]);
  }
  return places.join(", ");
}
