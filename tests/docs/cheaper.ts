/** What the docs test changes of commands that take long for what they measure, not for the size of their input: less of the same. */

import { flagNamed } from "../../src/commands/command_words.ts";
import { COMMANDS } from "../../src/commands/mod.ts";

const BRIEF = ["--samples", "3", "--seconds", "0.02"];

const RULES: readonly [pattern: RegExp, flags: readonly string[], reason: string][] = [
  [/^bench .*\.(npy|npz|fa)\b/, BRIEF, "10 samples per point"],
  [/^bench /, ["-L", "64,128", "--heads", "1", "--head-dim", "16", ...BRIEF], "lengths of up to a million rows"],
  [/^bench .*--compare /, ["--regression", "1000%"], "three samples on a busy machine may well be 5 % slower"],
  [/^compare /, ["-m", "16,32", "--redraws", "2", "--rows-timed", "64"], "wide projections, and speed on 4,096 rows"],
  [/^figure 3 (?!.*\.json)/, ["-L", "64,128", "--budget", "1"], "a minute of exact attention"],
  [/^figure 4 /, ["--trials", "2", "-L", "128"], "15 draws of 4,096 rows"],
  [/^figure theorem /, ["--trials", "50"], "10,000 draws"],
  [/^generate /, ["-n", "4"], "hundreds of tokens"],
];

/** A command line without the name of the program, with cheaper flags instead of its own. */
export function cheaper(args: readonly string[]): string[] {
  const command = COMMANDS.find(({ name }) => name === args[0]);
  const line = `${args.join(" ")} `;
  const added = RULES.filter(([pattern]) => pattern.test(line)).flatMap(([, flags]) => flags);
  if (!command || added.length === 0) return [...args];
  const replaced = new Set(added.map((word) => flagNamed(command, word)?.name));
  const kept = args.filter((word, i) => {
    const own = (text: string | undefined) => {
      const name = text === undefined ? undefined : flagNamed(command, text)?.name;
      return name !== undefined && replaced.has(name);
    };
    return !own(word) && !own(args[i - 1]); // all of them take a value
  });
  return [...kept, ...added];
}
