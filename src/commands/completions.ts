/** `performer completions SHELL`: a completion script made from the command table. */
import type { Command } from "./command.ts";

/** Makes the script of a shell. */
type Script = (typeof import("./completions_bash.ts"))["bashScript"];

const SHELLS: Readonly<Record<string, { readonly install: string; readonly load: () => Promise<Script> }>> = {
  bash: {
    install: "in ~/.bashrc: source <(performer completions bash)",
    load: async () => (await import("./completions_bash.ts")).bashScript,
  },
  zsh: {
    install: "in ~/.zshrc after compinit: source <(performer completions zsh)",
    load: async () => (await import("./completions_zsh.ts")).zshScript,
  },
  fish: {
    install: "performer completions fish > ~/.config/fish/completions/performer.fish",
    load: async () => (await import("./completions_fish.ts")).fishScript,
  },
};

export const completions: Command = {
  name: "completions",
  summary: "prints the TAB completion script of a shell: bash, zsh or fish",
  arguments: [{
    name: "SHELL",
    summary: "bash, zsh or fish",
    choices: Object.keys(SHELLS),
    meanings: Object.fromEntries(Object.entries(SHELLS).map(([name, { install }]) => [name, install])),
  }],
  flags: [],
  examples: [
    "source <(performer completions bash)                                        # in ~/.bashrc",
    "source <(performer completions zsh)                                         # in ~/.zshrc, after compinit",
    "performer completions zsh > ~/.zfunc/_performer                             # or so, in a folder of $fpath",
    "performer completions fish > ~/.config/fish/completions/performer.fish",
  ],
  async run({ arguments: [shell] }, terminal) {
    const [{ COMMANDS }, { placesOf }, script] = await Promise.all([
      import("./mod.ts"),
      import("./completion.ts"),
      SHELLS[shell].load(),
    ]);
    terminal.out(script(placesOf(COMMANDS)));
    return 0;
  },
};
