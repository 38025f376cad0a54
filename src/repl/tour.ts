/** The guided tour in a session: its steps one after the other, with the person's pace. */
import { plotStyle } from "../commands/plotting.ts";
import { UsageError } from "../errors.ts";
import { afterText, stepText, TOUR } from "../tour/tour.ts";
import type { Session } from "./session.ts";

const QUESTION = "Enter: next, b: back, 1 to 10: a step, q: leave > ";

/** Runs the tour from a step on ("": the first); without a person to ask, all of it. Returns an exit code. */
export async function runTour(session: Session, from: string): Promise<number> {
  const { world } = session;
  let at = from === "" ? 0 : stepNamed(from) ?? -1;
  if (at < 0) throw new UsageError(`Cannot begin at step ${from}: expected a number from 1 to ${TOUR.length}`);
  while (at < TOUR.length) {
    const step = TOUR[at];
    const invocation = { line: [], arguments: [], flags: { format: "text", plot: true }, sources: {} };
    const style = plotStyle(invocation, world)!;
    world.out(stepText(step, at, style.columns, style));
    await step.run({
      style,
      signal: world.signal,
      print: world.out,
      async line(text) {
        world.out(`performer> ${text}\n`);
        const code = await session.inline(text);
        if (code !== 0) throw new UsageError(`The tour's line "${text}" failed`);
      },
    });
    world.signal.throwIfAborted();
    world.out(afterText(step, style.columns, style));
    if (!session.asker) {
      at++;
      continue;
    }
    const next = await answered(session, at);
    if (next === null) {
      world.out(`The tour goes on with :tour ${Math.min(at + 2, TOUR.length)}\n`);
      return 0;
    }
    at = next;
  }
  world.out("That was the tour. Everything it used is here: load a file of your own, :help lists what there is.\n");
  return 0;
}

/** The step to go on with; null: leave. */
async function answered(session: Session, at: number): Promise<number | null> {
  for (;;) {
    const answer = (await session.asker!(QUESTION))?.trim().toLowerCase();
    if (answer === undefined || ["q", "quit", "exit", ":q", ":quit"].includes(answer)) return null;
    if (answer === "" || answer === "n" || answer === "next") return at + 1;
    if (answer === "b" || answer === "back") return Math.max(0, at - 1);
    const step = stepNamed(answer);
    if (step !== null) return step;
    session.world.out(
      `Cannot go to "${answer}": press Enter for the next step, or type b, q, or a number from 1 to ${TOUR.length}\n`,
    );
  }
}

function stepNamed(text: string): number | null {
  const step = /^\d{1,2}$/.test(text) ? Number(text) - 1 : -1;
  return step >= 0 && step < TOUR.length ? step : null;
}
