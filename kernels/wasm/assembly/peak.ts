/** The yardsticks of `performer bench`: our own product on operands in cache, and our own copy. */
import { LINE } from "./pack";
import { Columns, product, Set } from "./product";

/** `rounds` products of 16 × 64 by 64 × 64 (2·16·64·64 operations each), over 40 KB at `at`. */
export function productRounds(at: usize, rounds: i32): void {
  const b = at + 16 * LINE, c = b + 64 * LINE;
  for (let i = 0; i < rounds; i++) product<Columns, Set>(at, 64, b, LINE, c, LINE, 16, 64, 64);
}

/** Copies `bytes` from `from` to `to` `rounds` times. */
export function copyRounds(to: usize, from: usize, bytes: usize, rounds: i32): void {
  for (let i = 0; i < rounds; i++) memory.copy(to, from, bytes);
}
