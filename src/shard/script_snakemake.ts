/** A Snakefile, which Snakemake runs here, or on a cluster by a profile or --cluster. */
import type { ScriptParts } from "./script.ts";
import { AGAIN, headline } from "./script_words.ts";

export function snakemakeScript(parts: ScriptParts): string {
  const { folder, plan, shards, digits, causal, state, map, merge, apply, gather, threads } = parts;
  const spread = ` --threads ${threads ?? "{threads}"} --id {wildcards.id}`;
  const merged = causal ? `expand("prefix/{id}.safetensors", id=IDS)` : JSON.stringify(state);
  const seen = causal ? `"prefix/{id}.safetensors"` : JSON.stringify(state);
  return `# ${headline(parts)}
#   snakemake -s FILE --cores 8
#   snakemake -s FILE --jobs 64 --cluster 'sbatch --parsable --cpus-per-task={threads}'
# Run it again after a failure: what is done is left alone.
workdir: ${JSON.stringify(folder)}

IDS = [f"{i:0${digits}d}" for i in range(${shards})]

shell.executable("/bin/bash")
shell.prefix(r"""
${AGAIN.replaceAll(/[{}]/g, "$&$&")}
""")

wildcard_constraints:
    id=r"\\d+"

localrules: all

rule all:
    input: "out.npy"

rule map:
    input: ancient(${JSON.stringify(plan)})
    output: "states/{id}.safetensors"
    threads: ${threads ?? 1}
    shell: "again ${map}${spread}"

rule merge:
    input: expand("states/{id}.safetensors", id=IDS)
    output: ${merged}
    shell: "again ${merge}"

rule apply:
    input: ${seen}
    output: "out/{id}.npy", "out/{id}.json"
    threads: ${threads ?? 1}
    shell: "again ${apply}${spread}"

rule gather:
    input: expand("out/{id}.npy", id=IDS)
    output: "out.npy"
    shell: "again ${gather}"
`;
}
