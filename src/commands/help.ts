/** `performer help [TOPIC]`: a page on a command, a feature map, a projection, a backend or an idea. */
import type { Command } from "./command.ts";

export const help: Command = {
  name: "help",
  summary: "a page on a command or a topic: feature maps, projections, backends, what errors mean, how to choose",
  arguments: [{
    name: "TOPIC",
    summary: "what to explain; without it all topics are listed",
    optional: true,
    topics: true,
  }],
  flags: [],
  examples: ["performer help", "performer help error", "performer help hyperbolic", "performer help attend"],
  async run({ arguments: [name] }, terminal) {
    const { topicList, topicText } = await import("./help_text.ts");
    terminal.out(name === undefined ? topicList(terminal.columns) : await topicText(name, terminal.columns));
    return 0;
  },
};
