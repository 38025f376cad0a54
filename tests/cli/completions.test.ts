/** Completion in real shells: keys are pressed in a terminal, and each script's own function is asked. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import type { Command } from "../../src/commands/command.ts";
import { bashScript } from "../../src/commands/completions_bash.ts";
import { fishScript } from "../../src/commands/completions_fish.ts";
import { endsIn } from "../../src/commands/file_names.ts";
import { completionsFor, placesOf } from "../../src/commands/completion.ts";
import { COMMANDS } from "../../src/commands/mod.ts";
import { inside, performer, scratch } from "./process.ts";
import { installed } from "./programs.ts";
import { hasTmux, openTerminal } from "./terminal_session.ts";

const { path, remove } = scratch();

beforeAll(async () => {
  mkdirSync(path("home"));
  mkdirSync(path("data"));
  mkdirSync(path("data/deep"));
  for (const name of ["alpha.npy", "alpha.txt", "beta.npz", "genome.fa", "model.pt", "setup.json", "deep/inner.npy"]) {
    writeFileSync(path(`data/${name}`), "");
  }
  writeFileSync(path("data/two words.npy"), "");
  for (const shell of ["bash", "zsh", "fish"]) {
    const { code, stdout } = await inside(["completions", shell]);
    expect(code).toBe(0);
    writeFileSync(path(`performer.${shell}`), stdout);
  }
  mkdirSync(path("functions"));
  writeFileSync(path("functions/_performer"), (await inside(["completions", "zsh"])).stdout);
});
afterAll(remove);

/** How each shell is started with the completions, and nothing of the user's. */
const SHELLS: Readonly<Record<string, { readonly command: () => string[]; readonly setup: () => string[] }>> = {
  bash: {
    command: () => ["bash", "--norc", "--noprofile", "-i"],
    setup: () => ["bind 'set bell-style none'", `source ${path("performer.bash")}`],
  },
  zsh: {
    command: () => ["zsh", "-f", "-i"],
    setup: () => ["unsetopt beep", "autoload -Uz compinit && compinit -D", `source ${path("performer.zsh")}`],
  },
  "zsh with a file in fpath": {
    command: () => ["zsh", "-f", "-i"],
    setup: () => ["unsetopt beep", `fpath=(${path("functions")} $fpath)`, "autoload -Uz compinit && compinit -D"],
  },
  fish: {
    command: () => ["fish", "--no-config", "-i", "-C", "function fish_prompt; echo '$ '; end"],
    setup: () => [`source ${path("performer.fish")}`],
  },
};

/** What is typed before TAB, and what the line is then, without spaces at its end. */
const KEYS: [string, string][] = [
  ["performer gen", "performer generate"],
  ["performer --ver", "performer --version"],
  ["performer attend --num", "performer attend --num-features"],
  ["performer attend --features hyp-o", "performer attend --features hyp-oprf"],
  ["performer attend --features=hyp-o", "performer attend --features=hyp-oprf"],
  ["performer attend --backend webgpu,wa", "performer attend --backend webgpu,wasm"],
  ["performer bench --features=relu,trig", "performer bench --features=relu,trigonometric"],
  ["performer attend --far clusters:6", "performer attend --far clusters:64"],
  ["performer attend al", "performer attend alpha.npy"],
  ["performer attend --causal -m 64 tw", "performer attend --causal -m 64 two\\ words.npy"],
  ["performer attend deep/i", "performer attend deep/inner.npy"],
  ["performer attend --output=deep/i", "performer attend --output=deep/inner.npy"],
  ["performer attend de", "performer attend deep/"],
  ["performer attend -o de", "performer attend -o deep/"],
  ["performer run m", "performer run model.pt"],
  ["performer run model.pt alpha.npy --config s", "performer run model.pt alpha.npy --config setup.json"],
  ["performer figure heat", "performer figure heatmap"],
  ["performer completions f", "performer completions fish"],
];

describe.each(Object.keys(SHELLS))("TAB in %s", (name) => {
  const shell = name.split(" ")[0];
  const { command, setup } = SHELLS[name];

  test.skipIf(!hasTmux || !installed(shell))(`completes what is unique (needs tmux and ${shell})`, async () => {
    const env = { PS1: "$ ", HOME: path("home") };
    const window = { cwd: path("data"), env, columns: 100, rows: 30, patience: 15_000 };
    await using terminal = openTerminal(command(), window);
    await terminal.until("$");
    for (const line of setup()) terminal.enter(line);
    terminal.enter("clear; echo set up");
    await terminal.until(/^set up$/m);
    // The prompt is cut off; below the line there may be a list. zsh adds a comma to lists, which a space or Enter takes away.
    const shown = () => terminal.lines().find((line) => line.includes("performer"))?.replace(/^\S* /, "");
    for (const [typed, line] of KEYS) {
      terminal.press("C-l");
      terminal.type(typed);
      await terminal.until(typed);
      terminal.press("Tab");
      const done = () => shown()?.replace(/,?\s*$/, "") === line;
      await terminal.until(done).catch(() => expect([typed, shown()]).toEqual([typed, line]));
      terminal.type(" x");
      await terminal.until((screen) => /(^|[^,]) +x$/m.test(screen.split("\n")[0]));
      terminal.press("C-u");
      await terminal.until((screen) => !screen.includes("performer"));
    }
    terminal.press("C-l");
    terminal.type("performer figure ");
    await terminal.until("figure");
    // bash lists at the second TAB.
    terminal.press(...(shell === "bash" ? ["Tab", "Tab"] : ["Tab"]));
    const list = await terminal.until("heatmap");
    if (shell !== "bash") expect(list).toContain("error per head of INPUT");
  });
});

/** A half-typed line, some of what fits, and some of what does not. */
const LISTS: [line: string, fits: string[], misfits: string[]][] = [
  ["performer ", ["attend", "compare", "completions"], ["--help", "alpha.npy"]],
  ["performer -", ["--help", "--version"], ["attend"]],
  ["performer attend ", ["alpha.npy", "beta.npz", "genome.fa", "deep/"], [
    "alpha.txt",
    "model.pt",
    "setup.json",
    "--json",
  ]],
  ["performer attend al", ["alpha.npy"], ["alpha.txt"]],
  ["performer inspect ", ["model.pt", "alpha.npy", "genome.fa"], ["alpha.txt"]],
  ["performer run model.pt ", ["alpha.npy"], ["model.pt", "genome.fa"]],
  ["performer attend --report=", ["--report=deep/"], ["--report=alpha.npy"]],
  ["performer attend alpha.npy --", ["--causal", "--features", "--help"], ["attend"]],
  ["performer attend alpha.npy ", ["--causal", "--features"], ["beta.npz"]],
  ["performer attend --causal -m 64 --backend=wasm --", ["--features"], ["--causal", "--num-features", "--backend"]],
  ["performer attend -qm64 --", ["--features"], ["--quiet", "--num-features"]],
  ["performer attend --projection ", ["orthogonal", "sobol"], ["alpha.npy", "--causal"]],
  ["performer attend --backend webgpu,", ["webgpu,wasm", "webgpu,scalar"], ["webgpu,webgpu", "wasm"]],
  ["performer compare --features=relu,hyp-s", ["--features=relu,hyp-sderf"], ["--features=relu,hyp-oprf"]],
  ["performer attend --scale ", [], ["alpha.npy", "--causal"]],
  ["performer attend --causal=", [], ["alpha.npy", "--causal=alpha.npy"]],
  ["performer figure ", ["2", "heads", "heatmap"], ["alpha.npy"]],
  ["performer figure heads ", ["alpha.npy", "setup.json"], ["alpha.txt", "heatmap"]],
  ["performer repl alpha.npy beta.npz ", ["model.pt", "alpha.npy"], ["alpha.txt", "--tour"]],
  ["performer doctor ", ["--json", "--help"], ["alpha.npy"]],
  ["performer help ", ["attend", "hyperbolic", "near-and-far", "webgpu"], ["alpha.npy"]],
  ["performer help near", ["near-and-far"], ["attend"]],
  ["performer completions ", ["bash", "zsh", "fish"], ["alpha.npy"]],
  ["performer attend -- -", [], ["--causal"]],
  ["performer nonsense ", [], ["alpha.npy", "--json"]],
];

/** What of a half-typed line's last word is there already where a shell cuts words at "=" and ":". */
const uncut = (line: string, found: string) => {
  const word = line.split(" ").at(-1)!;
  const kept = /^.*[=:]/.exec(word)?.[0] ?? "";
  return found.startsWith(kept) ? found : kept + found;
};

/** Asks the script's own function, with words cut as bash cuts them. */
function askBash(line: string, script = "performer.bash"): string[] {
  const words = line.split(" ").flatMap((word) =>
    word === "" ? [""] : word.split(/([=:]+)/).filter((part) => part !== "")
  );
  const ask = `source ${
    path(script)
  }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _performer; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout, stderr } = spawnSync("bash", ["-uc", ask, "bash", ...words], { cwd: path("data"), encoding: "utf8" });
  expect(stderr).toBe("");
  // Readline adds the slash of a folder.
  return stdout.split("\n").map((found) => uncut(line, found)).map((found) =>
    /deep$/.test(found) ? `${found}/` : found
  );
}

function askFish(line: string, script = "performer.fish"): string[] {
  const ask = `source ${path(script)}; complete -C '${line}'`;
  const { stdout, stderr } = spawnSync("fish", ["--no-config", "-c", ask], { cwd: path("data"), encoding: "utf8" });
  expect(stderr).toBe("");
  return stdout.split("\n").map((found) => found.split("\t")[0]);
}

/** What the REPL offers: files are listed here as it would. */
function askTable(line: string): string[] {
  const { values, files, filesFrom } = completionsFor(line.split(" ").slice(1), COMMANDS);
  const word = line.split(" ").at(-1)!;
  const [kept, typed] = [word.slice(0, filesFrom), word.slice(filesFrom)];
  const entries = ["alpha.npy", "alpha.txt", "beta.npz", "genome.fa", "model.pt", "setup.json", "deep/"];
  const named = entries.filter((name) => name.startsWith(typed) && (name.endsWith("/") || endsIn(name, files ?? [])));
  return [...values.map(({ text }) => text), ...(files ? named.map((name) => kept + name) : [])];
}

describe.each(
  [["the table", askTable, true], ["bash", askBash, installed("bash")], ["fish", askFish, installed("fish")]] as const,
)(
  "what %s offers",
  (shell, ask, there) => {
    test.skipIf(!there).each(LISTS)(`%p (needs ${shell})`, (line, fits, misfits) => {
      const found = ask(line);
      for (const fit of fits) expect(found).toContain(fit);
      for (const misfit of misfits) expect(found).not.toContain(misfit);
    });
  },
);

test.skipIf(!installed("fish"))("an alias is completed in fish (needs fish)", () => {
  const ask = `source ${path("performer.fish")}; alias p=performer; complete -C 'p att'`;
  const { stdout } = spawnSync("fish", ["--no-config", "-c", ask], { encoding: "utf8" });
  expect(stdout).toStartWith("attend\t");
});

/** A made-up command whose one flag may be repeated. */
const MADE_UP: Command = {
  name: "pile",
  summary: "stones",
  arguments: [],
  flags: [
    { name: "stone", short: "s", value: "NAME", summary: "it's one", choices: ["big", "small"], many: true },
    { name: "tall", summary: "a tower" },
  ],
  examples: [],
  run: () => Promise.resolve(0),
};

test.skipIf(!installed("bash") || !installed("fish"))(
  "a flag that may be repeated is offered again (needs bash, fish)",
  () => {
    const line = "performer pile --stone big --tall -ssmall --";
    writeFileSync(path("many.bash"), bashScript(placesOf([MADE_UP])));
    writeFileSync(path("many.fish"), fishScript(placesOf([MADE_UP])));
    const table = completionsFor(line.split(" ").slice(1), [MADE_UP]).values.map(({ text }) => text);
    for (const found of [table, askBash(line, "many.bash"), askFish(line, "many.fish")]) {
      expect(found.filter((text) => text !== "").toSorted()).toEqual(["--help", "--stone"]);
    }
  },
);

test("every flag, choice and command of the table stands in every script", async () => {
  for (const shell of ["bash", "zsh", "fish"]) {
    const { stdout } = await inside(["completions", shell]);
    for (const { name, flags } of COMMANDS) {
      expect(stdout).toContain(name);
      for (const flag of flags) {
        expect(stdout).toContain(`--${flag.name}`);
        for (const choice of flag.choices ?? []) expect(stdout).toContain(choice);
      }
    }
    expect(stdout).not.toMatch(/undefined|\[object/);
  }
});

test("Deno prints the same scripts; another shell is a mistake", async () => {
  const { stdout } = await performer(["completions", "fish"], { runtime: "deno" });
  expect(stdout).toBe((await inside(["completions", "fish"])).stdout);
  const { code, stderr } = await inside(["completions", "fissh"]);
  expect(stderr).toContain("did you mean fish");
  expect(code).toBe(2);
});
