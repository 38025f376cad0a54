/** Programs that some tests need and not every machine has. */
import { spawnSync } from "node:child_process";

const SHELLS = ["fish", "zsh", "tmux"];

/**
 * Whether a program runs. Where PERFORMER_REQUIRE_SHELLS=1 says that fish, zsh and tmux were installed, they count as there,
 * so that tests fail instead of being skipped.
 */
export function installed(name: string, ask = "--version"): boolean {
  if (process.env.PERFORMER_REQUIRE_SHELLS === "1" && SHELLS.includes(name)) return true;
  return spawnSync(name, [ask], { stdio: "ignore" }).status === 0;
}
