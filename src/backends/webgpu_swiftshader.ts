/**
 * Software Vulkan without root: the SwiftShader that npm `@sparticuz/chromium` carries, unpacked once per user.
 * For tests and machines without a GPU; it is 50 to 500 times slower than WebAssembly on the same cores.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createHash } from "node:crypto";
import { tmpdir, userInfo } from "node:os";
import { basename, dirname, join } from "node:path";
import { brotliDecompressSync } from "node:zlib";
import { assets } from "../assets.ts";
import { UnsupportedError } from "../errors.ts";
import { loadVulkan, setNativeEnvironment } from "./webgpu_ffi.ts";

const DRIVER = "vk_swiftshader_icd.json";

/** Files of a tar archive (ustar, regular files only): name and bytes. */
export function* tarFiles(tar: Uint8Array): Iterable<{ readonly name: string; readonly bytes: Uint8Array }> {
  const text = (from: number, to: number) => new TextDecoder().decode(tar.subarray(from, to)).replace(/\0.*$/s, "");
  for (let at = 0; at + 512 <= tar.length && tar[at] !== 0;) {
    const size = parseInt(text(at + 124, at + 136).trim(), 8);
    if (!Number.isInteger(size)) throw new Error(`Cannot read tar entry at byte ${at}: its size is not a number`);
    const kind = tar[at + 156];
    if (kind === 0 || kind === 0x30) yield { name: text(at, at + 100), bytes: tar.subarray(at + 512, at + 512 + size) };
    at += 512 + Math.ceil(size / 512) * 512;
  }
}

/** Path of the archive in the nearest node_modules, or null. */
function findArchive(): string | null {
  for (let { folder } = assets; folder !== dirname(folder); folder = dirname(folder)) {
    const path = join(folder, "node_modules/@sparticuz/chromium/bin/swiftshader.tar.br");
    if (existsSync(path)) return path;
  }
  return null;
}

/** Folder with the unpacked libraries. Another process may unpack at the same time: the first rename wins. */
function unpack(archive: string): string {
  const { size, mtimeMs } = statSync(archive);
  const user = userInfo().username;
  const key = createHash("sha256").update(`${user} ${size} ${mtimeMs}`).digest("hex").slice(0, 12);
  const folder = join(tmpdir(), `performer-swiftshader-${key}`);
  const { uid } = userInfo();
  // Libraries are loaded from here, so a folder that somebody else made is not trusted.
  if (existsSync(join(folder, DRIVER)) && (uid < 0 || statSync(folder).uid === uid)) return folder;
  mkdirSync(tmpdir(), { recursive: true });
  const fresh = mkdtempSync(folder + "-");
  for (const { name, bytes } of tarFiles(brotliDecompressSync(readFileSync(archive)))) {
    const path = join(fresh, basename(name));
    writeFileSync(path, bytes);
    chmodSync(path, 0o755);
  }
  try {
    renameSync(fresh, folder);
    return folder;
  } catch {
    if (existsSync(join(folder, DRIVER)) && (uid < 0 || statSync(folder).uid === uid)) {
      rmSync(fresh, { recursive: true, force: true });
      return folder;
    }
    return fresh;
  }
}

/** Makes the next Dawn instance of this process see SwiftShader, and only it; throws UnsupportedError otherwise. */
export async function offerSwiftShader(): Promise<void> {
  const refuse = (reason: string) => new UnsupportedError("webgpu", `there is no graphics adapter, and ${reason}`);
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw refuse(`the software adapter is for linux-x64, not ${process.platform}-${process.arch}`);
  }
  let archive: string | null;
  try {
    archive = findArchive();
  } catch (error) {
    throw refuse(`the software adapter cannot be looked for: ${(error as Error).message}`);
  }
  if (!archive) {
    throw refuse(`the software adapter is not installed; run npm install @sparticuz/chromium${assets.where}`);
  }
  try {
    const folder = unpack(archive);
    for (const name of ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"]) {
      await setNativeEnvironment(name, join(folder, DRIVER));
    }
    if ((await loadVulkan("libvulkan.so.1")) !== null) {
      const failure = await loadVulkan(join(folder, "libvulkan.so.1"));
      if (failure !== null) throw new Error(failure);
    }
  } catch (error) {
    throw refuse(`the software adapter cannot be set up: ${(error as Error).message}`);
  }
}
