/** Programs that some tests need and not every machine has. */
import { spawnSync } from "node:child_process";

/**
 * Whether a program runs. Where PERFORMER_REQUIRE_SHELLS=1 says that shells and tmux were installed, they count as there,
 * so that tests fail instead of being skipped.
 */
export function installed(name: string, ask = "--version"): boolean {
  if (process.env.PERFORMER_REQUIRE_SHELLS === "1") return true;
  return spawnSync(name, [ask], { stdio: "ignore" }).status === 0;
}
