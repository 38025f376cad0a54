/** `performer man`: the man page, for those who like one and for packages. */
import type { Command } from "./command.ts";

export const man: Command = {
  name: "man",
  summary: "prints the man page, all commands and topics in one, as roff",
  arguments: [],
  flags: [],
  examples: ["performer man | man -l -", "performer man > ~/.local/share/man/man1/performer.1"],
  async run(_, terminal) {
    const { manPage } = await import("./man_page.ts");
    terminal.out(manPage());
    return 0;
  },
};
