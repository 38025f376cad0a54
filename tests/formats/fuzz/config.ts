/** Configuration files (src/commands/config.ts): refused by name, or the very values of their JSON. */
import { dirname, join } from "node:path";
import { COMMANDS } from "../../../src/commands/mod.ts";
import { configurationFor, settable } from "../../../src/commands/config.ts";
import { parseValue } from "../../../src/commands/parse.ts";
import type { Flag } from "../../../src/commands/command.ts";
import { type Kind, refusedOr, requireEqual } from "./case.ts";
import { damagedJson } from "./json.ts";
import { one, type Pick } from "./random.ts";

const encoded = (text: string) => new TextEncoder().encode(text);
const FLAGS = [...new Map(COMMANDS.flatMap(({ flags }) => flags).map((flag) => [flag.name, flag])).values()];

const CONFIGS: Readonly<Record<string, unknown>> = {
  "configuration": { backend: "scalar", "num-features": 512, causal: true, seed: 7, features: "positive", scale: 0.5 },
  "configuration of a window": { window: "64", heavy: "32", far: "taylor1", decay: "0.1,0.2", threads: 2, tile: 1024 },
};

/** Values that flags are given: numbers that they have no room for, lists without end. */
const VALUES = [
  1e308,
  -1,
  2 ** 53,
  "1e999",
  "NaN",
  "0x10",
  "1".repeat(5000),
  "1,".repeat(20_000),
  "a,".repeat(20_000),
  "..",
  "1..",
  "",
  " ",
  "\u0000",
  "64..1e9",
  true,
];

function aimed(bytes: Uint8Array, pick: Pick): Uint8Array {
  const values = JSON.parse(new TextDecoder().decode(bytes));
  if (pick(2) === 0) return encoded(damagedJson(values, pick));
  for (let left = 1 + pick(3); left > 0; left--) values[one(pick, FLAGS).name] = one(pick, VALUES);
  return encoded(JSON.stringify(values));
}

async function judge(path: string, bytes: Uint8Array, step: (name: string) => void): Promise<string> {
  step("read");
  const cwd = dirname(path);
  const terminal = { env: { XDG_CONFIG_HOME: join(cwd, "none") }, cwd } as unknown as Parameters<
    typeof configurationFor
  >[0];
  const configuration = configurationFor(terminal);
  const found = await refusedOr(path, async () => {
    await configuration.files();
    const values: [Flag, string][] = [];
    for (const flag of FLAGS.filter(settable)) {
      const set = await configuration.lookup(flag);
      if (set) values.push([flag, set.value]);
    }
    return values;
  });
  if (!found) return "refused";
  const said = Object.entries(JSON.parse(new TextDecoder().decode(bytes))).map((
    [name, value],
  ) => [name, String(value)]);
  requireEqual("the values", found.map(([{ name }, value]) => [name, value]).sort(), said.sort());
  step("values");
  let refused = 0;
  for (const [flag, value] of found) {
    const read = await refusedOr(path, async () => [parseValue(flag, value, `${path}: ${flag.name} =`)]);
    if (read === null) refused++;
  }
  return refused > 0 ? "read, values refused" : "read";
}

const bases = Object.entries(CONFIGS).map(([name, values]) => ({ name, bytes: encoded(JSON.stringify(values)) }));

export const config: Kind = { file: "performer.json", bases, aimed, forged: null, judge };
