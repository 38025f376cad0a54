// Builds kernels/wasm/*.wasm from kernels/wasm/assembly with AssemblyScript. `--check` builds aside and compares, byte for byte.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import asc from "assemblyscript/asc";

const folder = join(dirname(fileURLToPath(import.meta.url)), "..", "kernels", "wasm");
const check = process.argv.includes("--check");
const target = check ? mkdtempSync(join(tmpdir(), "performer-wasm-")) : folder;
let stale = 0;
try {
  // Relaxed SIMD has a multiply-add that some engines fuse; plain SIMD runs where relaxed is refused.
  for (const [name, relaxed] of [["simd", 0], ["relaxed", 1]]) {
    const out = join(target, `${name}.wasm`);
    const { error, stderr } = await asc.main([
      join(folder, "assembly", "index.ts"),
      ...["--outFile", out, "-O3", "--noAssert", "--runtime", "stub", "--use", `RELAXED=${relaxed}`],
      ...["--enable", `simd,threads,bulk-memory${relaxed ? ",relaxed-simd" : ""}`],
      ...["--importMemory", "--sharedMemory", "--initialMemory", "1", "--maximumMemory", "65536"],
      ...["--disableWarning", "112"], // v128 in exports: only other files of the same module call them
    ]);
    if (error) throw new Error(`${stderr}\n${error.message}`);
    if (!check) continue;
    if (!readFileSync(out).equals(readFileSync(join(folder, `${name}.wasm`)))) {
      console.error(`kernels/wasm/${name}.wasm is not what its source builds: run node scripts/build_wasm.mjs`);
      stale++;
    }
  }
} finally {
  if (check) rmSync(target, { recursive: true });
}
process.exitCode = stale > 0 ? 1 : 0;
