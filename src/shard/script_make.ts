/** A Makefile: one machine, as many tasks at once as -j says. */
import type { ScriptParts } from "./script.ts";
import { AGAIN, headline } from "./script_words.ts";

export function makeScript(parts: ScriptParts): string {
  const { folder, plan, shards, digits, stages, gather, threads } = parts;
  const spread = ` --threads ${threads ?? 1}`;
  // Lines of one recipe are one shell; $ is make's own sign.
  const again = AGAIN.split("\n").filter((line) => !line.startsWith("#")).map((line) => line.trim()).join("\n")
    .replaceAll("$", "$$$$");
  const rules = stages.map(({ states, merged, rows, map, merge, apply }, i) =>
    `$(IDS:%=${states}/%.safetensors): ${states}/%.safetensors: ${i === 0 ? `| ${plan}` : `${stages[i - 1].rows}/%.npy`}
	@eval "$$AGAIN"; again ${map}${spread} --id $*

${merged}: $(IDS:%=${states}/%.safetensors)
	${merge}

$(IDS:%=${rows}/%.npy): ${rows}/%.npy: ${merged}
	@eval "$$AGAIN"; again ${apply}${spread} --id $*
`
  );
  return `# ${headline(parts)}
#   make -f FILE -C ${folder} -j 8
# Run it again after a failure: what is done is left alone.
SHELL := /bin/bash
# Exit 75 is a fault that may pass: a device was lost, a disk is full. Any other failure would be the same again.
define AGAIN
${again}
endef
export AGAIN
IDS := $(shell seq -f %0${digits}g 0 ${shards - 1})

out.npy: $(IDS:%=${stages.at(-1)!.rows}/%.npy)
	${gather}

${rules.join("\n")}`;
}
