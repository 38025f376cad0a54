/**
 * The two native calls that Web APIs lack, both for software Vulkan on Linux: does a shared library load, and `setenv`.
 *
 * A library stays loaded, so Dawn's own `dlopen` by the same name finds it even when it lies outside the search path.
 * `process.env.X = …` is enough on Deno, but Bun keeps it from native `getenv`; hence libc's own `setenv`.
 */

interface BunFfi {
  dlopen(path: string, symbols: Record<string, { args: string[]; returns: string }>): {
    readonly symbols: Record<string, (...args: unknown[]) => unknown>;
  };
}

interface DenoFfi {
  dlopen(path: string, symbols: Record<string, never>): unknown;
}

const deno = (globalThis as { readonly Deno?: DenoFfi }).Deno;

async function bunFfi(): Promise<BunFfi | null> {
  if (!process.versions.bun) return null;
  const name = "bun:ffi"; // a variable, so that no other runtime's resolver meets it
  return (await import(name)) as BunFfi;
}

/** Libraries stay loaded as long as their handles do. */
const loaded: unknown[] = [];

/** Loads a Vulkan loader for the life of the process; null when done, otherwise why not. */
export async function loadVulkan(path: string): Promise<string | null> {
  try {
    const bun = await bunFfi();
    if (bun) loaded.push(bun.dlopen(path, { vkGetInstanceProcAddr: { args: ["ptr", "cstring"], returns: "ptr" } }));
    else if (deno) loaded.push(deno.dlopen(path, {}));
    else return "this runtime has no foreign-function interface";
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Sets an environment variable where native code sees it; throws when the runtime forbids it. */
export async function setNativeEnvironment(name: string, value: string): Promise<void> {
  process.env[name] = value;
  const bun = await bunFfi();
  if (!bun) return;
  const libc = bun.dlopen("libc.so.6", { setenv: { args: ["cstring", "cstring", "i32"], returns: "i32" } });
  libc.symbols.setenv(new TextEncoder().encode(name + "\0"), new TextEncoder().encode(value + "\0"), 1);
}
