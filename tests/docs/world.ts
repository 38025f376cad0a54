/** A folder in which the commands of the documentation run: small files of the names they use, and the repository's own files. */
import { chmodSync, copyFileSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { inside, npyBytes, ROOT, RUNTIMES, scratch, wave } from "../cli/process.ts";
import { zipOf } from "../formats/torch_made.ts";

export interface World {
  readonly folder: string;
  /** Of the user, with the folders that completions and man pages go to. */
  readonly home: string;
  /** PATH with `performer` and `npx performer`; `man`, and where there is none `jq`, are stand-ins. */
  readonly path: string;
  readonly remove: () => void;
}

const POD = "tests/golden/models/pod_performer"; // a Performer over the 256 bytes: 3 layers, 192 wide
const CELLS = "tests/golden/lm/masked_batch2"; // bidirectional, as scBERT is
const ENC_DEC = "tests/fixtures/enc_dec";
const GENOME_LINES = 43; // of 70 bases, after the name: as short as one setting of tune still reaches 5 %

/** Numbers as small as random features need them. */
const small = (shape: readonly number[], seed: number) => npyBytes(shape, (i) => 0.5 * wave(i + 1e6 * seed));

/** A plan with the states and outputs of all its shards, as pages have them. */
function shards(at: (name: string) => string): string[][] {
  const plan = at("plan.json");
  const each = (action: string, ...more: string[]) =>
    Array.from({ length: 16 }, (_, id) => ["shard", action, plan, "--id", `${id}`, "--backend", "scalar", ...more]);
  return [
    ["shard", "plan", ...["q.npy", "k.npy", "v.npy"].map(at), "--shards", "16", "-o", plan],
    ...each("map", "-o", at("states")),
    ["shard", "merge", plan, at("states"), "-o", at("kv.safetensors")],
    ...each("apply", "--state", at("kv.safetensors"), "-o", at("out")),
  ];
}

/** Makes it. */
export async function makeWorld(): Promise<World> {
  const { path: at, remove } = scratch();
  const folder = dirname(at("x"));
  const write = (name: string, data: Uint8Array | string) => {
    mkdirSync(dirname(at(name)), { recursive: true });
    writeFileSync(at(name), data);
  };

  write("input.npy", small([320, 64], 1));
  write("rows.npy", small([200, 192], 2));
  const heads = ["q", "k", "v"].map((name, i) => [`${name}.npy`, small([4, 320, 16], 3 + i)] as const);
  for (const [name, bytes] of heads) write(name, bytes);
  write("genome.npy", small([300, 64], 6));
  write("list.txt", "input.npy\ngenome.npy\n");
  write("may.txt", "# measured in May\ninput.npy\nmissing.npy\ngenome.npy\tmay/genome.npz\n");
  write("data/few.npy", small([20, 8], 7));
  write("qkv.npz", zipOf(heads.map(([name, data]) => ({ name, data }))));
  write("mask.npy", npyBytes([320], (i) => i % 50 === 49 ? 0 : 1));

  const lambda = readFileSync(join(ROOT, "examples/data/lambda_virus.fa"), "utf8").split("\n");
  const genome = lambda.slice(0, GENOME_LINES).join("\n") + "\n";
  for (const name of ["genome.fa", "examples/data/lambda_virus.fa"]) write(name, genome);

  const copies = [
    [POD, "model.pt", "model.pt"],
    [POD, "model.pt", "model.ckpt"],
    [POD, "config.json", "config.json"],
    [POD, "prompt.npy", "prompt.npy"],
    [POD, "prompt.npy", "tokens.npy"],
    [CELLS, "model.pt", "scbert.pth"],
    [CELLS, "tokens.npy", "cells.npy"],
    ["tests/golden/lm/plain_float16", "tokens.npy", "cell.npy"],
    [ENC_DEC, "model.pt", "encdec.pt"],
    [ENC_DEC, "target.npy", "target.npy"],
    [ENC_DEC, "source.npy", "source.npy"],
  ];
  for (const [from, file, name] of copies) copyFileSync(join(ROOT, from, file), at(name));
  for (
    const args of [
      ["convert", at("model.pt"), at("model.safetensors")],
      ...shards(at),
      ["bench", "--backend", "scalar", "--heads", "1", "-L", "64,128", "--seconds", "0.02", "-o", at("lengths.json")],
    ]
  ) {
    const { code, stderr } = await inside(args);
    if (code !== 0) throw new Error(stderr);
  }

  // The repository's scripts and tests as they are; what they write stays here.
  for (const name of ["scripts", "tests", "kernels", "src", "mod.ts", "node_modules", "deno.json", "package.json"]) {
    symlinkSync(join(ROOT, name), at(name));
  }
  for (const [room, own] of [["examples", "data"], ["bench", "results"]]) {
    mkdirSync(at(`${room}/${own}`), { recursive: true });
    for (const name of readdirSync(join(ROOT, room)).filter((name) => name !== own)) {
      symlinkSync(join(ROOT, room, name), at(`${room}/${name}`));
    }
  }
  const program = JSON.stringify(join(ROOT, "tests/docs/performer.ts"));
  write("cli.ts", `import ${program};\n`);

  const shell = (name: string, text: string) => {
    write(`bin/${name}`, `#!/bin/sh\n${text}\n`);
    chmodSync(at(`bin/${name}`), 0o755);
  };
  const bun = RUNTIMES.bun[0];
  shell("performer", `exec ${bun} ${program} "$@"`);
  shell("npx", `[ "$1" = performer ] || { echo "npx $1 is not for here" >&2; exit 9; }\nshift\nexec performer "$@"`);
  shell("man", `[ "$*" = "-l -" ] && exec cat`); // which not every machine has
  if (!Bun.which("jq")) shell("jq", `exec ${bun} ${JSON.stringify(join(ROOT, "tests/docs/jq.ts"))} "$@"`);
  for (const name of [".zfunc", ".config/fish/completions", ".local/share/man/man1"]) {
    mkdirSync(at(`home/${name}`), { recursive: true });
  }
  return { folder, home: at("home"), path: [at("bin"), dirname(bun), process.env.PATH].join(delimiter), remove };
}
