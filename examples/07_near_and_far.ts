/** Trained heads have keys too large for random features: near keys exactly, the others cheaply, under one normaliser. */
import { fileURLToPath } from "node:url";
import { attend, type AttendSettings, load, openBackend } from "../mod.ts";

const at = (name: string) =>
  fileURLToPath(new URL(`../tests/fixtures/heads/masked_layer0/${name}.npy`, import.meta.url));
const [q, k, v] = await Promise.all(["q", "k", "v"].map((name) => load(at(name)))); // two heads of a small language model
await using backend = await openBackend("wasm");

const settings: Record<string, AttendSettings> = {
  "random features, m = 256": { features: "hyperbolic" },
  "fitted to the data": { features: "hyp-aderf+sderf" },
  "first-order moments": { features: "taylor1" },
  "window 32, heavy 32": { window: 32, heavy: 32 },
  "and 32 clusters, top 8": { window: 32, heavy: 32, far: "clusters", clusters: 32, top: 8 },
};
for (const [name, wish] of Object.entries(settings)) {
  const { error } = (await attend(q, k, v, { ...wish, backend })).report;
  const { relativeL2, uniformBaseline, skill } = error!;
  console.log(
    `${name.padEnd(26)} error ${relativeL2.value.toFixed(3)}  mean of V ${uniformBaseline.toFixed(3)}  skill ${
      skill.toFixed(2)
    }`,
  );
}
