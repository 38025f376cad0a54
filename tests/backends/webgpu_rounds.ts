/** Run by webgpu.test.ts in a process of its own: 50 rounds of submit and mapAsync with a forced collection before each. */
import { webgpu } from "../../src/backends/webgpu.ts";
import { problem } from "./webgpu_helpers.ts";

await using backend = await webgpu.open({ named: true });
const { plan, q, k, v } = problem({ rows: 8, features: 8, heads: 1 });
await using session = await backend.prepare(plan);
for (let round = 0; round < 50; round++) {
  (globalThis as { Bun?: { gc(force: boolean): void } }).Bun?.gc(true);
  await session.absorb(k, v);
  await session.emit(q);
}
console.log("50 rounds");
