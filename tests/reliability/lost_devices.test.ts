/** Devices and threads that go away, and memory that is not there, in the middle of a run: never a hang, one more try, a clear end. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Backend } from "../../src/backend.ts";
import { openFirst } from "../../src/backends/mod.ts";
import { scalar } from "../../src/backends/scalar.ts";
import { wasm } from "../../src/backends/wasm.ts";
import { webgpu, type WebgpuBackend } from "../../src/backends/webgpu.ts";
import type { Plan } from "../../src/plan.ts";
import { type Retry, TransientError } from "../../src/errors.ts";
import { WarmBackends } from "../../src/backends/warm.ts";
import { THREADS } from "../../src/threads.ts";
import { makeProblem, planFor } from "../conformance/harness.ts";
import { rejection } from "../formats/support.ts";
import { inside, npyBytes, RUNTIMES, scratch, wave } from "../cli/process.ts";

const { path, remove } = scratch();
afterAll(remove);
beforeAll(() => writeFileSync(path("x.npy"), npyBytes([1000, 8], wave)));

/** Fails in the middle of a pass: `fails(tileRows, opening)` says whether the backend opened at turn `opening` does. */
function failing(
  retry: Retry | null,
  fails: (tileRows: number, opening: number) => boolean,
  during: "absorb" | "emit",
) {
  const tiles: number[] = [];
  const open: typeof openFirst = async () => {
    const inner: Backend = await scalar.open({ named: true });
    const opening = tiles.length;
    tiles.push(0);
    const backend: Backend = {
      name: "scalar",
      device: "a fake",
      limits: inner.limits,
      prepareExact: (plan) => inner.prepareExact(plan),
      prepareLinear: (plan) => inner.prepareLinear(plan),
      async prepare(plan) {
        tiles[opening] = plan.tileRows;
        const session = await inner.prepare(plan);
        let calls = 0;
        const call = session[during].bind(session) as (...args: unknown[]) => Promise<unknown>;
        return Object.assign(session, {
          [during]: async (...args: unknown[]) => {
            if (++calls === 3 && fails(plan.tileRows, opening)) {
              throw new TransientError("The device is gone", { retry });
            }
            return await call(...args);
          },
        });
      },
      [Symbol.asyncDispose]: () => inner[Symbol.asyncDispose](),
    };
    return { backend, refused: [] };
  };
  return { open, tiles };
}

const args = (...flags: string[]) => {
  return ["attend", path("x.npy"), "--features", "elu", "-m", "8", "--check", "0", "-o", path("out.npy"), ...flags];
};
const left = () => readdirSync(path(".")).filter((name) => name.includes("out.npy"));

describe("a device that is lost", () => {
  test.each(["absorb", "emit"] as const)(
    "during %s: it is opened anew, and the output is that of an undisturbed run",
    async (during) => {
      expect((await inside([...args("--tile", "100"), "--backend", "scalar"])).code).toBe(0);
      const wanted = readFileSync(path("out.npy"));
      const { open, tiles } = failing("again", (_, opening) => opening === 0, during);
      const { code, stderr } = await inside(args("--tile", "100"), { openFirst: open });
      expect(stderr).toBe("performer: The device is gone; opening it anew and trying once more\n");
      expect([code, tiles, readFileSync(path("out.npy")).equals(wanted)]).toEqual([0, [64, 64], true]);
    },
  );

  test("a second time: exit 75, what was tried, what to do, and no partial output", async () => {
    writeFileSync(path("out.npy"), "what was there before");
    const { open, tiles } = failing("again", () => true, "emit");
    const { code, stderr } = await inside(args("--tile", "100"), { openFirst: open });
    expect(stderr).toContain("The device is gone (it was tried twice; another --backend may do)");
    expect([code, tiles.length, left()]).toEqual([75, 2, ["out.npy"]]);
    expect(readFileSync(path("out.npy"), "utf8")).toBe("what was there before");
  });

  test("nothing is tried again where rows have gone out or inputs cannot be read twice", async () => {
    for (const flags of [["-o", "/dev/null"], ["--mask", "/dev/null"]]) {
      const { open, tiles } = failing("again", () => true, "emit");
      const { code } = await inside(args("--tile", "100", ...flags), { openFirst: open });
      expect(code).not.toBe(0);
      expect(tiles.length).toBeLessThan(2);
    }
  });

  test("an error that nothing can be done about is not tried again", async () => {
    const { open, tiles } = failing(null, () => true, "emit");
    const { code, stderr } = await inside(args("--tile", "100"), { openFirst: open });
    expect([code, tiles.length, stderr]).toEqual([75, 1, "performer: The device is gone\n"]);
  });
});

describe("too little memory", () => {
  test("tiles are made smaller until they fit", async () => {
    const { open, tiles } = failing("smaller", (rows) => rows > 100, "absorb");
    const { code, stderr } = await inside(args("--tile", "300"), { openFirst: open });
    expect(stderr).toBe("performer: The device is gone; trying again with tiles of 64 rows\n");
    expect([code, tiles]).toEqual([0, [256, 64]]);
  });

  test("that never fit: exit 75, and what was tried", async () => {
    const { open, tiles } = failing("smaller", () => true, "absorb");
    const { code, stderr } = await inside(args("--tile", "300"), { openFirst: open });
    expect(stderr).toContain("(tiles down to 64 rows were tried; another --backend may do)");
    expect([code, tiles, left()]).toEqual([75, [256, 64], ["out.npy"]]);
  });
});

const gpu = await webgpu.open({ named: true }).then(
  async (backend) => {
    await backend[Symbol.asyncDispose]();
    return null;
  },
  (error: Error) => error.message,
);

test.skipIf(gpu !== null)(
  `a graphics device that goes away in the middle of a run (${gpu ?? "destroyed"})`,
  async () => {
    let opened = 0;
    const open: typeof openFirst = async () => {
      const backend = await webgpu.open({ named: true }) as WebgpuBackend;
      const first = ++opened === 1;
      const lend: Backend = new Proxy(backend, {
        get(target, name) {
          if (name === "prepare" && first) {
            return async (plan: Plan) => {
              const session = await target.prepare(plan);
              target.gpu.device.destroy();
              return session;
            };
          }
          const found = Reflect.get(target, name, target);
          return typeof found === "function" ? found.bind(target) : found;
        },
      });
      return { backend: lend, refused: [] };
    };
    const { code, stderr } = await inside(args(), { openFirst: open });
    expect(stderr).toMatch(
      /^performer: The graphics device was lost, try again: .*; opening it anew and trying once more\n$/,
    );
    expect([code, opened, left()]).toEqual([0, 2, ["out.npy"]]);
  },
  60_000,
);

/** Ends a thread of the pool in the middle of a session; every call from then on must settle, with an error. */
async function lostIn(during: (backend: Awaited<ReturnType<typeof wasm.open>>) => Promise<void>): Promise<Error> {
  const problem = makeProblem({ keyRows: 4000, heads: 4, headDim: 32, features: 64 });
  await using backend = await wasm.open({ named: true, threads: 2, eager: true });
  await using session = await backend.prepare(planFor(problem, 4000));
  await session.absorb(problem.k, problem.v);
  const calls = [session.absorb(problem.k, problem.v), session.emit(problem.q)];
  const ended = during(backend);
  const settled = await Promise.allSettled([...calls, session.emit(problem.q)]);
  await ended;
  expect(backend.lost).toBe(true);
  const failures = settled.filter(({ status }) => status === "rejected");
  expect(failures.length).toBeGreaterThan(0);
  return (failures[0] as PromiseRejectedResult).reason;
}

describe("threads of the wasm backend", () => {
  test("one that ends in the middle of its work: calls that wait fail, and so do all that come", async () => {
    const error = await lostIn((backend) => backend.pool.terminate(1));
    expect(error).toBeInstanceOf(TransientError);
    expect([(error as TransientError).retry, error.message]).toEqual(["again", expect.stringContaining("--threads 1")]);
  });

  test.each([
    ["throws when it starts", "throw new Error('no room for a thread');", "no room for a thread"],
    ["exits", "process.exit(9);", "code 9"],
    [
      "throws at its first job",
      `import { parentPort } from "node:worker_threads";
      parentPort.on("message", () => { throw new Error("a broken instruction"); });`,
      "a broken instruction",
    ],
  ])("one that %s is a clear error", async (_, code, words) => {
    const usual = THREADS.compute;
    writeFileSync(path("thread.mjs"), code);
    Object.assign(THREADS, { compute: new URL(`file://${path("thread.mjs")}`) });
    try {
      const problem = makeProblem({ keyRows: 64 });
      await using backend = await wasm.open({ named: true, threads: 2, eager: true });
      await using session = await backend.prepare(planFor(problem, 64));
      const error = await rejection(session.absorb(problem.k, problem.v));
      expect(error).toBeInstanceOf(TransientError);
      expect(error.message).toContain(words);
    } finally {
      Object.assign(THREADS, { compute: usual });
    }
  });

  test("attend starts new ones and goes on", async () => {
    let opened = 0;
    const open: typeof openFirst = async () => {
      const backend = await wasm.open({ named: true, threads: 2, eager: true });
      if (++opened === 1) setTimeout(() => backend.pool.terminate(0), 0);
      return { backend, refused: [] };
    };
    const { code, stderr } = await inside(args("--tile", "10"), { openFirst: open });
    expect(stderr).toContain("opening it anew and trying once more");
    expect([code, opened, left()]).toEqual([0, 2, ["out.npy"]]);
  });
});

test("a session does not keep a backend that is lost", async () => {
  await using warm = new WarmBackends();
  const wishes = [{ name: "wasm", named: true }] as const;
  const { backend } = await warm.open(wishes, { threads: 2, eager: true });
  expect(backend.lost).toBe(false);
  const pool = (backend as Awaited<ReturnType<typeof wasm.open>>).pool;
  await pool.terminate(0);
  for (let i = 0; i < 200 && !backend.lost; i++) await Bun.sleep(10);
  expect(backend.lost).toBe(true);
  const { backend: anew } = await warm.open(wishes, { threads: 2, eager: true });
  expect(anew.lost).toBe(false);
});

test("on Deno: a thread that is gone is an error there too", () => {
  const source = (name: string) => JSON.stringify(new URL(`../../src/${name}`, import.meta.url).href);
  writeFileSync(
    path("lost.ts"),
    `
    import { wasm } from ${source("backends/wasm.ts")};
    import { makeProblem, planFor } from ${JSON.stringify(new URL("../conformance/harness.ts", import.meta.url).href)};
    const problem = makeProblem({ keyRows: 64 });
    await using backend = await wasm.open({ named: true, threads: 2, eager: true });
    await using session = await backend.prepare(planFor(problem, 64));
    await session.absorb(problem.k, problem.v);
    await backend.pool.terminate(1);
    const error = await session.emit(problem.q).then(() => null, (error) => error);
    console.log(error?.name, error?.message, backend.lost);`,
  );
  const [deno, ...flags] = RUNTIMES.deno;
  const cwd = fileURLToPath(new URL("../..", import.meta.url));
  const { stdout, stderr } = spawnSync(deno, [...flags, path("lost.ts")], { encoding: "utf8", cwd, timeout: 60_000 });
  expect(stderr).toBe("");
  expect(stdout).toMatch(/^TransientError A computing thread of the wasm backend is gone: .* true\n$/);
});
