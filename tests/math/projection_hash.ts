/** Hash of a few projection matrices; run as a program it prints the hash, so that runtimes can be compared. */
import { createHash } from "node:crypto";
import { drawProjection } from "../../src/projection.ts";

export function projectionHash(): string {
  const hash = createHash("sha256");
  for (const kind of ["orthogonal", "iid"]) {
    for (const norms of ["chi", "sqrtd"] as const) {
      const W = drawProjection({
        kind,
        projections: 150,
        headDim: 64,
        matrices: 2,
        norms,
        seed: 2 ** 40 + 17,
        draw: 3,
      });
      const bytes = new DataView(new ArrayBuffer(8 * W.length));
      W.forEach((value, i) => bytes.setFloat64(8 * i, value, true));
      hash.update(new Uint8Array(bytes.buffer));
    }
  }
  return hash.digest("hex");
}

if (import.meta.main) console.log(projectionHash());
