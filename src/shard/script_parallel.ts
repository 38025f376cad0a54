/** GNU parallel on one machine, or on several that share the folder. */
import { shellLine } from "../words.ts";
import type { ScriptParts } from "./script.ts";
import { AGAIN, headline } from "./script_words.ts";

export function parallelScript(parts: ScriptParts): string {
  const { folder, shards, stages, gather, threads } = parts;
  const each = (log: string, command: string) =>
    `seq 0 ${shards - 1} | parallel "$@" --joblog ${log}.log --halt soon,fail=1 again ${command} --threads ${
      threads ?? 1
    } --id {}`;
  const steps = stages.map(({ name, map, merge, apply }) =>
    `${each(`${name}map`, map)}\n${merge}\n${each(`${name}apply`, apply)}`
  );
  return `#!/usr/bin/env bash
# ${headline(parts)}
#   bash FILE [options of parallel, such as --jobs 4, or --sshloginfile hosts --env again --workdir .]
# Run it again after a failure: what is done is left alone.
set -euo pipefail
cd -- ${shellLine([folder])}
${AGAIN}
export -f again
export SHELL=/bin/bash
${steps.join("\n")}
${gather}
`;
}
