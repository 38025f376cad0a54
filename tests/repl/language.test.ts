/** The language of a session: words, lines that go on, expressions as trees, what a line is. */
import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { COMMANDS } from "../../src/commands/mod.ts";
import { UsageError } from "../../src/errors.ts";
import { type Expression, parseExpression } from "../../src/repl/expression.ts";
import { keysOf } from "../../src/repl/keys.ts";
import { NEW_SEARCH, type Search, searchLine, searchStep } from "../../src/repl/search.ts";
import { statementOf } from "../../src/repl/statement.ts";
import { goesOn, joined, wordsOf } from "../../src/repl/words.ts";
import { shellLine } from "../../src/words.ts";

const texts = (line: string, open = false) => wordsOf(line, open).map(({ text }) => text);

describe("words", () => {
  test("are cut at spaces, but not within quotes or brackets", () => {
    expect(texts("attend x[0:10, 2:4] --heads 8")).toEqual(["attend", "x[0:10, 2:4]", "--heads", "8"]);
    expect(texts(`load 'my file.npy' "a \\"b\\"" c\\ d`)).toEqual(["load", "my file.npy", 'a "b"', "c d"]);
    expect(texts(`m["a b"].head(1, 2)`)).toEqual([`m["a b"].head(1, 2)`]);
  });

  test("a comment ends a line; a # within a word does not", () => {
    expect(texts("attend x # all of it")).toEqual(["attend", "x"]);
    expect(texts("attend x#1")).toEqual(["attend", "x#1"]);
  });

  test("an open quote is an error, or for completion the end of the line", () => {
    expect(() => texts("load 'my file")).toThrow(UsageError);
    expect(texts("load 'my fi", true)).toEqual(["load", "my fi"]);
  });

  test("are what a shell would take, whatever they hold", () => {
    fc.assert(
      fc.property(fc.array(fc.string({ minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 5 }), (words) => {
        fc.pre(words.every((word) => !/[\\\n]/.test(word)));
        expect(texts(shellLine(words))).toEqual(words);
      }),
    );
  });
});

describe("lines that go on", () => {
  test("end with a backslash, or inside brackets or quotes", () => {
    for (const line of ["attend x \\", "y = x[0:", "js [1, 2].map((x) => {", "y = (1 +", "load 'a", "js `a"]) {
      expect([line, goesOn(line)]).toEqual([line, true]);
    }
    for (const line of ["attend x", "y = x[0:1] # (", "y = (1)", "js 'a('", "", "load 'a[b'", ")"]) {
      expect([line, goesOn(line)]).toEqual([line, false]);
    }
  });

  test("are one when joined", () => expect(joined("attend x \\\n  -m 64")).toBe("attend x   -m 64"));
});

/** A number expression by itself. */
function value(tree: Expression): number {
  if (tree.kind === "number") return tree.value;
  if (tree.kind === "negate") return -value(tree.of);
  if (tree.kind !== "binary") throw new Error(tree.kind);
  const [a, b] = [value(tree.left), value(tree.right)];
  return { "+": a + b, "-": a - b, "*": a * b, "/": a / b, "^": a ** b }[tree.sign];
}

describe("expressions", () => {
  test("bind as in mathematics", () => {
    const cases: [string, number][] = [
      ["1 + 2 * 3", 7],
      ["(1 + 2) * 3", 9],
      ["2 ^ 3 ^ 2", 512],
      ["-2 ^ 2", -4],
      ["2 ** -1", 0.5],
      ["8 / 4 / 2", 1],
      ["7 - 2 - 1", 4],
      ["1e3 + 1_000 + .5", 2000.5],
      ["- - 3", 3],
    ];
    for (const [text, wanted] of cases) expect([text, value(parseExpression(text))]).toEqual([text, wanted]);
  });

  test("agree with JavaScript", () => {
    const leaf = fc.integer({ min: 0, max: 20 }).map(String);
    const { tree } = fc.letrec<{ tree: string }>((tie) => ({
      tree: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.tuple(tie("tree"), fc.constantFrom("+", "-", "*"), tie("tree")).map(([a, sign, b]) => `(${a} ${sign} ${b})`),
        fc.tuple(tie("tree"), fc.constantFrom("+", "-", "*"), leaf).map(([a, sign, b]) => `${a} ${sign} ${b}`),
      ),
    }));
    fc.assert(fc.property(tree, (text) => {
      expect(value(parseExpression(text))).toBe(new Function(`return ${text}`)());
    }));
  });

  test("say where they break, and never hang", () => {
    expect(() => parseExpression("x[0:")).toThrow(/at letter 5: it ends there/);
    expect(() => parseExpression("1 +")).toThrow(/expected a number, a name or \(/);
    expect(() => parseExpression("x y")).toThrow(/at letter 3: found "y", expected an operator or the end/);
    fc.assert(fc.property(fc.string({ unit: fc.constantFrom(..."x1.[](),:+-*/^ 'e\""), maxLength: 20 }), (text) => {
      try {
        parseExpression(text);
      } catch (error) {
        expect(error).toBeInstanceOf(UsageError);
      }
    }));
  });
});

describe("statements", () => {
  const of = (line: string, variables: string[] = ["x"]) => statementOf(line, COMMANDS, variables);

  test("commands, expressions, assignments, JavaScript, directives, help", () => {
    expect(of("attend x -m 64")).toMatchObject({ kind: "command", target: null, quiet: false });
    expect(of("y = attend x;")).toMatchObject({ kind: "command", target: "y", quiet: true });
    expect(of("y = x[0:2] * 2")).toMatchObject({ kind: "expression", target: "y", text: "x[0:2] * 2" });
    expect(of("n = js [1,2].length;")).toMatchObject({ kind: "js", target: "n", code: "[1,2].length;", quiet: true });
    expect(of(":set causal on")).toMatchObject({ kind: "directive", name: "set", rest: "causal on" });
    expect(of("?attend")).toMatchObject({ kind: "help", topic: "attend" });
    expect(of("# nothing")).toMatchObject({ kind: "nothing" });
    expect(of("x - 1")).toMatchObject({ kind: "expression" });
  });

  test("lines copied from the documentation run", () => {
    const { words } = of("$ npx performer attend input.npy") as unknown as { words: { text: string }[] };
    expect(words.map(({ text }) => text)).toEqual(["attend", "input.npy"]);
  });

  test("a mistyped command is named, a command is no variable", () => {
    expect(() => of("attned x --causal")).toThrow('Unknown command "attned": did you mean attend?');
    expect(() => of("attend = 3")).toThrow('Cannot use "attend" as a variable: it is a command');
    expect(() => of("js")).toThrow("Missing code");
    expect(() => of("y =")).toThrow("Missing value");
  });
});

describe("keys", () => {
  test("are told apart in one piece of input", () => {
    expect(keysOf("aé\x1b[A\x1bOB\x1b[200~\t\x03\x1bb\x1b[1;5C")).toEqual([
      ..."aé",
      "\x1b[A",
      "\x1bOB",
      "\x1b[200~",
      "\t",
      "\x03",
      "\x1bb",
      "\x1b[1;5C",
    ]);
    expect(keysOf("\x1b")).toEqual(["\x1b"]);
  });
});

describe("search back", () => {
  const history = ["attend x", "stats(x)", "compare x", "attend y", "attend y"];
  const press = (keys: readonly string[]) => {
    let search: Search = NEW_SEARCH;
    for (const key of keys) {
      const step = searchStep(search, key, history);
      if (step.kind !== "goes on") return step;
      search = step.search;
    }
    return search;
  };

  test("finds the newest entry, then older ones, each text once", () => {
    expect(press([..."att"])).toMatchObject({ at: 4, failed: false });
    expect(press([..."att", "\x12"])).toMatchObject({ at: 0, failed: false });
    expect(press([..."att", "\x12", "\x12"])).toMatchObject({ at: 0, failed: true });
    expect(press([..."com"])).toMatchObject({ at: 2 });
    expect(press([..."zz"])).toMatchObject({ failed: true });
    expect(press([..."statz", "\x7f"])).toMatchObject({ at: 1, query: "stat", failed: false });
  });

  test("Enter runs what was found, an arrow edits it, Ctrl-G gives up", () => {
    expect(press([..."comp", "\r"])).toEqual({ kind: "taken", entry: "compare x", then: "\r" });
    expect(press([..."comp", "\x1b[D"])).toEqual({ kind: "taken", entry: "compare x", then: "\x1b[D" });
    expect(press([..."comp", "\x1b"])).toEqual({ kind: "taken", entry: "compare x", then: null });
    expect(press([..."comp", "\x07"])).toEqual({ kind: "given up" });
  });

  test("is shown on one line that fits", () => {
    const found = press([..."att"]) as Search;
    expect(searchLine(found, history, 80)).toBe("search back: att │ attend y");
    expect(searchLine({ ...found, failed: true }, history, 20).length).toBeLessThanOrEqual(20);
  });
});
