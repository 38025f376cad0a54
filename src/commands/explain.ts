/** `performer explain INPUT`: what `attend` with the same flags would do, and about how long it would take. */
import { attend } from "./attend.ts";
import type { Command } from "./command.ts";

export const explain: Command = {
  name: "explain",
  summary: "what attend with these flags would do, about how long and how well: attend --dry-run",
  arguments: attend.arguments,
  flags: attend.flags.filter(({ name }) => name !== "dry-run" && name !== "batch"),
  examples: [
    "performer explain input.npy --heads 8 -o output.npy",
    "performer explain qkv.npz --features softmax --json | jq .seconds.total",
  ],
  claims: false,
  async run(invocation, terminal) {
    const { runDry } = await import("./attend_dry.ts");
    return await runDry({ ...invocation, flags: { ...invocation.flags, "dry-run": true } }, terminal);
  },
};
