/** Expressions of a session as trees: numbers, names, slices, calls, + - * / ^. They are evaluated in evaluate.ts. */
import { UsageError } from "../errors.ts";

/** One index within brackets: `3`, `"name"`, or `a:b` with either side left out. */
export type Index =
  | { readonly kind: "at"; readonly at: Expression }
  | { readonly kind: "slice"; readonly from: Expression | null; readonly to: Expression | null };

export type Expression =
  | { readonly kind: "number"; readonly value: number }
  | { readonly kind: "text"; readonly value: string }
  | { readonly kind: "name"; readonly name: string }
  | { readonly kind: "negate"; readonly of: Expression }
  | { readonly kind: "binary"; readonly sign: Sign; readonly left: Expression; readonly right: Expression }
  | { readonly kind: "index"; readonly of: Expression; readonly indices: readonly Index[] }
  | { readonly kind: "member"; readonly of: Expression; readonly name: string }
  | { readonly kind: "call"; readonly of: Expression; readonly arguments: readonly Expression[] };

export type Sign = "+" | "-" | "*" | "/" | "^";

interface Token {
  readonly kind: "number" | "text" | "name" | "sign" | "end";
  readonly text: string;
  readonly at: number;
}

const TOKEN =
  /\s*(?:(\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|("(?:[^"\\]|\\.)*"|'[^']*')|([A-Za-z_]\w*)|(\*\*|.))/sy;

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  for (let match; (match = TOKEN.exec(text));) {
    const [, number, quoted, name, sign] = match;
    const at = TOKEN.lastIndex - (number ?? quoted ?? name ?? sign).length;
    if (number !== undefined) tokens.push({ kind: "number", text: number.replaceAll("_", ""), at });
    else if (quoted !== undefined) {
      const inner = quoted.slice(1, -1);
      tokens.push({ kind: "text", text: quoted[0] === '"' ? inner.replace(/\\(.)/gs, "$1") : inner, at });
    } else if (name !== undefined) tokens.push({ kind: "name", text: name, at });
    else if (/\S/.test(sign)) tokens.push({ kind: "sign", text: sign === "**" ? "^" : sign, at });
  }
  return [...tokens, { kind: "end", text: "", at: text.length }];
}

/** The tree of an expression. Throws UsageError that says where it breaks. */
export function parseExpression(text: string): Expression {
  return new Parser(text).whole();
}

class Parser {
  readonly #tokens: readonly Token[];
  #next = 0;

  constructor(readonly text: string) {
    this.#tokens = tokensOf(text);
  }

  whole(): Expression {
    const tree = this.#sum();
    if (this.#peek.kind !== "end") throw this.#unexpected("an operator or the end");
    return tree;
  }

  get #peek(): Token {
    return this.#tokens[this.#next];
  }

  #unexpected(wanted: string): UsageError {
    const { kind, text, at } = this.#peek;
    const found = kind === "end" ? "it ends there" : `found "${text}"`;
    return new UsageError(`Cannot read "${this.text}" at letter ${at + 1}: ${found}, expected ${wanted}`);
  }

  #takes(...signs: string[]): string | null {
    const { kind, text } = this.#peek;
    if (kind !== "sign" || !signs.includes(text)) return null;
    this.#next++;
    return text;
  }

  #expects(sign: string): void {
    if (!this.#takes(sign)) throw this.#unexpected(`"${sign}"`);
  }

  #sum(): Expression {
    let left = this.#product();
    for (let sign; (sign = this.#takes("+", "-"));) {
      left = { kind: "binary", sign: sign as Sign, left, right: this.#product() };
    }
    return left;
  }

  #product(): Expression {
    let left = this.#negation();
    for (let sign; (sign = this.#takes("*", "/"));) {
      left = { kind: "binary", sign: sign as Sign, left, right: this.#negation() };
    }
    return left;
  }

  /** −x² is −(x²). */
  #negation(): Expression {
    if (this.#takes("-")) return { kind: "negate", of: this.#negation() };
    if (this.#takes("+")) return this.#negation();
    const left = this.#postfix();
    return this.#takes("^") ? { kind: "binary", sign: "^", left, right: this.#negation() } : left;
  }

  #postfix(): Expression {
    let of = this.#primary();
    for (;;) {
      if (this.#takes("[")) of = { kind: "index", of, indices: this.#list("]", () => this.#index()) };
      else if (this.#takes("(")) of = { kind: "call", of, arguments: this.#list(")", () => this.#sum()) };
      else if (this.#takes(".")) {
        const { kind, text } = this.#peek;
        if (kind !== "name") throw this.#unexpected("a name after the point");
        this.#next++;
        of = { kind: "member", of, name: text };
      } else return of;
    }
  }

  #list<T>(close: string, item: () => T): T[] {
    const items: T[] = [];
    while (!this.#takes(close)) {
      items.push(item());
      if (!this.#takes(",")) {
        this.#expects(close);
        break;
      }
    }
    return items;
  }

  #index(): Index {
    const ends = () => this.#peek.kind === "sign" && [":", ",", "]"].includes(this.#peek.text);
    const from = ends() ? null : this.#sum();
    if (this.#takes(":")) return { kind: "slice", from, to: ends() ? null : this.#sum() };
    if (!from) throw this.#unexpected("a number or a slice such as 0:4096");
    return { kind: "at", at: from };
  }

  #primary(): Expression {
    const { kind, text } = this.#peek;
    if (kind === "sign" && text === "(") {
      this.#next++;
      const inner = this.#sum();
      this.#expects(")");
      return inner;
    }
    if (kind !== "number" && kind !== "text" && kind !== "name") {
      throw this.#unexpected("a number, a name or (");
    }
    this.#next++;
    if (kind === "number") return { kind, value: Number(text) };
    return kind === "text" ? { kind, value: text } : { kind, name: text };
  }
}
