/** What the completion scripts of all shells are made from. */
import type { CommandPlaces, Place } from "./completion.ts";

/** Places with the same values, files and kind, and their keys: "attend --backend", or "attend 0" for the first argument. */
export interface PlaceGroup {
  readonly keys: readonly string[];
  readonly place: Place;
}

/** The places where something can be offered, the equal ones together. */
export function placeGroups(commands: readonly CommandPlaces[]): PlaceGroup[] {
  const groups = new Map<string, { keys: string[]; place: Place }>();
  const add = (key: string, place: Place | null) => {
    if (!place || (place.values.length === 0 && !place.files)) return;
    const { values, list, files } = place;
    const same = JSON.stringify([values, list, files]);
    const group = groups.get(same);
    if (group) group.keys.push(key);
    else groups.set(same, { keys: [key], place });
  };
  for (const command of commands) {
    command.arguments.forEach((place, i) => add(`${command.name} ${i}`, place));
    for (const { text, place } of command.flags) add(`${command.name} ${text}`, place);
  }
  return [...groups.values()];
}

/** A summary in a line of a menu: its first clause, at most 72 letters. */
export function brief(summary: string): string {
  const clause = /^.{20,}?(?=[;:] | \()/s.exec(summary)?.[0] ?? summary;
  if (clause.length <= 72) return clause;
  return `${clause.slice(0, 71).replace(/[\s,]+\S*$/, "")} …`;
}

/** Text as bash and zsh take it, whatever it holds. */
export const quoted = (text: string): string =>
  /^[\w./+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

/** Lines for each item, indented. */
export function block<T>(items: readonly T[], line: (item: T) => string): string {
  return items.map((item) => `${line(item)}\n`).join("");
}
