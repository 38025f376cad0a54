/** Job arrays of Slurm: map, merge when all are done, apply; the next layer when all of those are; gather. */
import { shellLine } from "../words.ts";
import type { ScriptParts } from "./script.ts";
import { headline } from "./script_words.ts";

/** Tasks of one array: Slurm's MaxArraySize is 1001 unless a site says otherwise. */
const ARRAY = 1000;

export function slurmScript(parts: ScriptParts): string {
  const { folder, shards, stages, gather, threads } = parts;
  const spread = ` --threads ${threads ?? "\\${SLURM_CPUS_PER_TASK:-1}"}`;
  const steps = stages.map(({ name, map, merge, apply }) =>
    `maps=$(arrays ${name}map "$applies" "${map}${spread}" "$@")
merge=:$(submit ${name}merge "$maps" "${merge}" "$@")
applies=$(arrays ${name}apply "$merge" "${apply}${spread}" "$@")
echo "${name}map $maps, ${name}merge $merge, ${name}apply $applies"`
  );
  return `#!/usr/bin/env bash
# ${headline(parts)}
#   bash FILE [options of sbatch for all tasks, such as --partition=long --cpus-per-task=4 --time=1:00:00]
# AT_ONCE=256 bash FILE … lets no more than 256 tasks run at once. Run it again after a failure: what is done is left alone.
set -euo pipefail
cd -- ${shellLine([folder])}
mkdir -p logs

# NAME, the jobs that must have ended well, a command, options of sbatch: the number of the job.
submit() {
  local name=$1 after=$2 command=$3
  shift 3
  sbatch --parsable --job-name="performer-$name" --output="logs/$name-%j.log" --open-mode=append --requeue \\
    \${after:+--dependency="afterok$after" --kill-on-invalid-dep=yes} "$@" <<JOB
#!/usr/bin/env bash
$command
code=\\$?
# Exit 75 is a fault that may pass, perhaps on another node; any other failure would be the same again.
if [ "\\$code" -eq 75 ] && [ "\\\${SLURM_RESTART_COUNT:-0}" -lt 3 ]; then
  scontrol requeue "\\\${SLURM_ARRAY_JOB_ID:-\\$SLURM_JOB_ID}\\\${SLURM_ARRAY_TASK_ID:+_\\$SLURM_ARRAY_TASK_ID}" && sleep 600
fi
exit "\\$code"
JOB
}

# The shard is the number of the task alone, after the first of its array: how many tasks an array has changes when some are run again.
arrays() {
  local name=$1 after=$2 command=$3 jobs=""
  shift 3
  for ((first = 0; first < ${shards}; first += ${ARRAY})); do
    local last=$((${shards} - first > ${ARRAY} ? ${ARRAY - 1} : ${shards - 1} - first))
    jobs+=":$(submit "$name" "$after" "$command --id \\$((SLURM_ARRAY_TASK_ID + $first))" --array="0-$last\${AT_ONCE:+%$AT_ONCE}" "$@")"
  done
  echo "$jobs"
}

applies=
${steps.join("\n")}
gather=:$(submit gather "$applies" "${gather}" "$@")
echo "gather $gather"
`;
}
