/** Hashes of a few projection matrices; run as a program it prints them, so that runtimes can be compared. */
import { createHash } from "node:crypto";
import { drawFactored } from "../../src/projection.ts";

/** Kinds hashed together; a kind added later gets a hash of its own, so that the old ones stay. */
export const HASHED: readonly (readonly string[])[] = [["orthogonal", "iid"], ["hadamard"], ["givens", "simplex"], [
  "sobol",
]];

/** One hash per row of HASHED, of the matrices and, where they have some, their factors. */
export function projectionHashes(): string[] {
  return HASHED.map((kinds) => {
    const hash = createHash("sha256");
    for (const kind of kinds) {
      for (const norms of ["chi", "sqrtd"] as const) {
        const { weights, hadamard } = drawFactored({
          kind,
          projections: 150,
          headDim: 64,
          matrices: 2,
          norms,
          seed: 2 ** 40 + 17,
          draw: 3,
        });
        for (const numbers of hadamard ? [weights, hadamard.signs, hadamard.norms] : [weights]) {
          const bytes = new DataView(new ArrayBuffer(8 * numbers.length));
          numbers.forEach((value, i) => bytes.setFloat64(8 * i, value, true));
          hash.update(new Uint8Array(bytes.buffer));
        }
      }
    }
    return hash.digest("hex");
  });
}

if (import.meta.main) console.log(projectionHashes().join("\n"));
