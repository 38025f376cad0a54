/** The numbers of a checkpoint, read when they are needed and looked at before they are used. */
import type { Backend, Linear } from "../backend.ts";
import { InputError } from "../errors.ts";
import type { Container } from "../formats/container.ts";
import type { LinearPlan } from "../plan.ts";
import type { FloatArray, Precision } from "../tensor.ts";
import type { DenseLayout, NormLayout } from "./description.ts";

/** A norm with its numbers. */
export type Norm =
  | { readonly kind: "layer"; readonly weight: FloatArray; readonly bias: FloatArray; readonly epsilon: number }
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
    if (layout.kind !== "layer") {
      const [g] = await this.tensor(layout.g, "f64");
      return { kind: layout.kind, g };
    }
    const { weight, bias, epsilon } = layout;
    return { kind: "layer", weight: await this.tensor(weight, "f64"), bias: await this.tensor(bias, "f64"), epsilon };
  }

  /** W `outputs × inputs` and b of a dense layer. */
  async dense({ weight, bias, inputs, outputs, firstRow }: DenseLayout): Promise<Pick<LinearPlan, "weight" | "bias">> {
    const all = await this.tensor(weight);
    return {
      weight: all.subarray(firstRow * inputs, (firstRow + outputs) * inputs),
      bias: bias === null ? null : (await this.tensor(bias)).subarray(firstRow, firstRow + outputs),
    };
  }

  /** A dense layer on a backend; `rows` takes some of its outputs only. */
  async linear(
    backend: Backend,
    layout: DenseLayout,
    tileRows: number,
    options: { readonly activation?: LinearPlan["activation"]; readonly rows?: readonly [number, number] } = {},
  ): Promise<Linear> {
    const { activation = "none", rows: [from, to] = [0, layout.outputs] } = options;
    const { weight, bias } = await this.dense({ ...layout, firstRow: layout.firstRow + from, outputs: to - from });
    return await backend.prepareLinear({
      inputs: layout.inputs,
      outputs: to - from,
      weight,
      bias,
      activation,
      tileRows,
    });
  }
}

function position(at: number, shape: readonly number[]): string {
  const places: number[] = [];
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    places.unshift(at % shape[axis]);
    at = Math.floor(at / shape[axis]);
  }
  return places.join(", ");
}
