/** What can follow on a half-typed command line: for the shells' scripts and for TAB in the REPL. */
import { TOPICS } from "../help/mod.ts";
import type { Group } from "../help/topic.ts";
import type { Argument, Command, Flag } from "./command.ts";
import { flagNamed, readWords } from "./command_words.ts";

/** A word that may stand somewhere, with a line on what it is ("" where there is nothing to say). */
export interface Candidate {
  readonly text: string;
  readonly summary: string;
}

/** What may stand at one place. */
export interface Place {
  /** What the place is called: "FILE", "R". */
  readonly name: string;
  readonly summary: string;
  readonly values: readonly Candidate[];
  /** Several values with commas between. */
  readonly list: boolean;
  /** How names of files end that fit, [] being any; null: no files. */
  readonly files: readonly string[] | null;
}

/** A flag as it is typed; `place` is null for switches. */
export interface FlagPlace {
  readonly text: string;
  readonly short: string | null;
  readonly summary: string;
  readonly place: Place | null;
  /** May be given more than once. */
  readonly many: boolean;
}

export interface CommandPlaces {
  readonly name: string;
  readonly summary: string;
  readonly flags: readonly FlagPlace[];
  readonly arguments: readonly Place[];
  /** The last argument stands for any number of them. */
  readonly endless: boolean;
}

const topics = (...groups: Group[]): Candidate[] => {
  return TOPICS.filter(({ group }) => groups.includes(group)).map(({ name, summary }) => ({ text: name, summary }));
};
const meaningsOf = (candidates: readonly Candidate[]) => {
  return Object.fromEntries(candidates.map(({ text, summary }) => [text, summary]));
};

/** What names of values mean, by the flag they stand behind. */
const MEANINGS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  features: {
    ...meaningsOf(topics("feature maps", "far fields")),
    auto: "the best for the arithmetic of -m positive features, by trials",
    own: "the checkpoint's own",
  },
  far: { ...meaningsOf(topics("far fields")), none: "keys that are not near are not seen" },
  projection: meaningsOf(topics("projections")),
  backend: { ...meaningsOf(topics("backends")), auto: "the first that opens" },
  compat: meaningsOf(topics("numerics")),
};

function placeOf(name: string, place: Flag | Argument, table: readonly Command[]): Place {
  const { summary, choices = [], offers = [], files, meanings = MEANINGS[place.name] ?? {} } = place;
  const named = /\b(FILES?|PATH|FOLDER|INPUT)\b/.test(name) && choices.length === 0;
  const explained = place.topics
    ? [...commandsOf(table), ...TOPICS.map(({ name, summary }) => ({ text: name, summary }))]
    : [];
  return {
    name,
    summary,
    values: [...choices, ...offers].map((text) => ({ text, summary: meanings[text] ?? "" })).concat(explained),
    list: "list" in place && place.list === true,
    files: files ?? (named ? [] : null),
  };
}

const commandsOf = (table: readonly Command[]): Candidate[] =>
  table.map(({ name, summary }) => ({ text: name, summary }));

/** Everything that may stand after each command. */
export function placesOf(table: readonly Command[]): CommandPlaces[] {
  return table.map((command) => ({
    name: command.name,
    summary: command.summary,
    endless: command.arguments.at(-1)?.many === true,
    arguments: command.arguments.map((argument) => placeOf(argument.name, argument, table)),
    flags: [
      ...command.flags.map((flag) => ({
        text: `--${flag.name}`,
        short: flag.short ? `-${flag.short}` : null,
        summary: flag.summary,
        place: flag.value ? placeOf(flag.value, flag, table) : null,
        many: flag.many === true,
      })),
      { text: "--help", short: "-h", summary: "show flags and examples", place: null, many: false },
    ],
  }));
}

/** What may stand before a command. */
export const ROOT_FLAGS: readonly Candidate[] = [
  { text: "--help", summary: "list the commands" },
  { text: "--version", summary: "print the version" },
];

/** What fits a half-typed word. */
export interface Completions {
  /** Whole words that it may become. */
  readonly values: readonly Candidate[];
  /** How names of files end that fit as well ([] any), folders apart, which always do; null: no files. */
  readonly files: readonly string[] | null;
  /** Where the name of a file begins in the word: after "--output=". */
  readonly filesFrom: number;
}

const NOTHING: Completions = { values: [], files: null, filesFrom: 0 };

/**
 * What the last of `words` may become, "" being one that is not begun; the first is the command's name, without `performer` before it.
 * Flags that were given are not offered again.
 */
export function completionsFor(words: readonly string[], table: readonly Command[]): Completions {
  const word = words.at(-1) ?? "";
  const beginning = (candidates: readonly Candidate[]) => candidates.filter(({ text }) => text.startsWith(word));
  if (words.length < 2) {
    return { ...NOTHING, values: beginning(word.startsWith("-") ? ROOT_FLAGS : commandsOf(table)) };
  }
  const command = table.find(({ name }) => name === words[0]);
  if (!command) return NOTHING;
  const before = readWords(command, words.slice(1, -1));
  if (before.open) return fitting(placeOf(before.open.value!, before.open, table), word, 0);
  const argument = before.next && placeOf(before.next.name, before.next, table);
  if (before.ended) return argument ? fitting(argument, word, 0) : NOTHING;
  const equals = /^(--[^=]+)=/.exec(word);
  if (equals) {
    const flag = flagNamed(command, equals[1]);
    return flag?.value ? fitting(placeOf(flag.value, flag, table), word, equals[0].length) : NOTHING;
  }
  const given = new Set(before.words.flatMap((other) => other.kind === "flag" ? [`--${other.flag.name}`] : []));
  const flags = beginning(placesOf([command])[0].flags.filter(({ text, many }) => many || !given.has(text)));
  if (word.startsWith("-")) return { ...NOTHING, values: flags.map(({ text, summary }) => ({ text, summary })) };
  const found = argument ? fitting(argument, word, 0) : NOTHING;
  if (word !== "" || found.values.length > 0 || found.files) return found;
  return { ...NOTHING, values: flags.map(({ text, summary }) => ({ text, summary })) };
}

/** What fits at a place, for a word whose own part begins at `from`. */
function fitting({ values, list, files }: Place, word: string, from: number): Completions {
  const start = list ? Math.max(from, word.lastIndexOf(",") + 1) : from;
  const [kept, typed] = [word.slice(0, start), word.slice(start)];
  const taken = list ? word.slice(from, start).split(",") : [];
  const fit = values.filter(({ text }) => text.startsWith(typed) && !taken.includes(text));
  return {
    values: fit.map(({ text, summary }) => ({ text: kept + text, summary })),
    files: list && start > from ? null : files,
    filesFrom: from,
  };
}
