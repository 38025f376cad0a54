/** `performer shard script`: the file of an engine, on stdout or in -o. */
import { writeText } from "../bytes.ts";
import { UsageError } from "../errors.ts";
import { type Engine, ENGINES } from "../shard/actions.ts";
import type { ModelPlan } from "../shard/model_plan.ts";
import type { ShardPlan } from "../shard/plan.ts";
import { engineScript } from "../shard/script.ts";
import type { Invocation, Terminal } from "./command.ts";
import { reportOf } from "./shard_open.ts";
import type { Done } from "./shard_run.ts";

/** Prints or writes a script. */
export async function scriptOf(
  plan: ShardPlan | ModelPlan,
  { flags }: Invocation,
  terminal: Terminal,
): Promise<Done> {
  const engine = flags.engine as Engine | undefined;
  if (!engine) throw new UsageError(`Missing --engine: one of ${ENGINES.join(", ")}`);
  const text = engineScript(engine, plan, {
    program: String(flags.program),
    backend: String(flags.backend),
    threads: flags.threads as number | undefined,
    tile: flags.tile as number | undefined,
  });
  const { output = "-" } = flags as { output?: string };
  if (output === "-") terminal.out(text);
  else await writeText(output, text, { executable: engine === "slurm" || engine === "parallel" });
  return {
    toStdout: output === "-",
    report: {
      ...reportOf("script", plan, terminal),
      engine,
      output: { path: output === "-" ? "stdout" : output, bytes: new TextEncoder().encode(text).length },
    },
  };
}
