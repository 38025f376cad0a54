/** A page for every projection. Sources: kernels/README.md §7, src/projection.ts. */
import { PROJECTIONS } from "../projection.ts";
import type { Block, Topic } from "./topic.ts";

const PAGES: Readonly<Record<string, readonly Block[]>> = {
  orthogonal: [
    { formula: ["W = diag(n) · (U_1; U_2; …),   U U^T = 1,   n_a distributed as ‖N(0, 1_d)‖"] },
    "Rows of a block of d are orthogonal, and each alone is distributed as N(0, 1), so that features stay unbiased; weights of positive features vary less " +
    "than with independent rows, whatever d. Directions are uniform (Haar), which the QR of LAPACK alone does not give. The default.",
  ],
  iid: [
    { formula: ["W_al independent, N(0, 1)"] },
    "What the formulas of variances in the other pages assume.",
  ],
  hadamard: [
    { formula: ["W = diag(n) · N D_3 N D_2 N D_1,   N = H / √d'"] },
    "H is Sylvester's matrix of d' rows, the power of two from d on, D_1, D_2, D_3 random signs, new for each block. Orthogonal, and W x takes d' log d' additions instead of d² products where a " +
    "backend (wasm) has a fast transform. Directions are not quite uniform: for narrow heads prefer orthogonal.",
  ],
  givens: [
    { formula: ["U = a product of 4 d log₂ d plane rotations"] },
    "Planes of two random coordinates, random angles: orthogonal blocks whose directions are nearly uniform: a check on the others more than a choice.",
  ],
  simplex: [
    { formula: ["u_a·u_b = −1/(d − 1) for a ≠ b,   turned by a random rotation"] },
    "Directions to the corners of a simplex, which point apart more than orthogonal ones do: with --features positive and m near d their variance is " +
    "lower. hyperbolic, which uses both signs, gains nothing from it.",
  ],
  sobol: [
    { formula: ["w_a = Φ⁻¹(u_a),   u_1 … u_m a scrambled Sobol net in (0, 1)^d"] },
    "Rows that cover the normal distribution evenly: take a power of two of rows, 64 or more. Lower variance for --features positive while queries " +
    "and keys are small; at d = 64 it costs hyperbolic a factor of 2.",
  ],
};

export const PROJECTION_TOPICS: readonly Topic[] = Object.entries(PROJECTIONS).map(([name, { summary }]) => ({
  name,
  group: "projections",
  summary,
  body: PAGES[name] ?? [],
  examples: [`performer attend qkv.npz --projection ${name} -m 256`],
  see: ["projection", ...Object.keys(PROJECTIONS).filter((other) => other !== name)],
}));
