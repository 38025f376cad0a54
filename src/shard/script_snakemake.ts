/** A Snakefile, which Snakemake runs here, or on a cluster by a profile or --cluster. */
import type { ScriptParts } from "./script.ts";
import { AGAIN, headline } from "./script_words.ts";

export function snakemakeScript(parts: ScriptParts): string {
  const { folder, plan, shards, digits, causal, stages, gather, threads } = parts;
  const spread = ` --threads ${threads ?? "{threads}"} --id {wildcards.id}`;
  const rules = stages.map(({ name, states, seen, rows, map, merge, apply }, i) => {
    const rule = name.replaceAll("-", "_");
    const file = JSON.stringify(seen.replace("ID", "{id}"));
    const before = i === 0 ? `ancient(${JSON.stringify(plan)})` : `"${stages[i - 1].rows}/{id}.npy"`;
    return `rule ${rule}map:
    input: ${before}
    output: "${states}/{id}.safetensors"
    threads: ${threads ?? 1}
    shell: "again ${map}${spread}"

rule ${rule}merge:
    input: expand("${states}/{id}.safetensors", id=IDS)
    output: ${causal ? `expand(${file}, id=IDS)` : file}
    shell: "again ${merge}"

rule ${rule}apply:
    input: ${file}
    output: "${rows}/{id}.npy", "${rows}/{id}.json"
    threads: ${threads ?? 1}
    shell: "again ${apply}${spread}"
`;
  });
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

${rules.join("\n")}
rule gather:
    input: expand("${stages.at(-1)!.rows}/{id}.npy", id=IDS)
    output: "out.npy"
    shell: "again ${gather}"
`;
}
