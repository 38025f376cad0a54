/** A disk in memory whose power can be cut before any call: what was not synced by then may be there, or not, or in part. */
import type { Disk, FileIdentity, OpenFile } from "../../src/disk.ts";
import { wave } from "../cli/process.ts";

/** The power went. */
export class PowerCut extends Error {}

interface Inode {
  readonly number: number;
  /** What would be read now, and what is on the platter. */
  now: Uint8Array;
  durable: Uint8Array;
  /** Since the last sync, in order. */
  pending: ((bytes: Uint8Array) => Uint8Array)[];
}

type Names = Map<string, Inode>;

/** What of the things that were not synced is there after the cut. */
export type Survival = "nothing" | "everything" | "some";

export class FragileDisk implements Disk {
  /** Calls so far. */
  calls = 0;
  #names: Names = new Map();
  #durable: Names = new Map();
  /** Changes of names since the folder was synced, in order: file systems keep that order. */
  #pending: ((names: Names) => void)[] = [];
  #inodes = 0;

  /** Before which call the power goes. */
  constructor(public cutAt = Infinity) {}

  #call(): void {
    if (++this.calls >= this.cutAt) throw new PowerCut(`before call ${this.calls}`);
  }

  open(path: string, { create }: { readonly create: boolean }): OpenFile {
    this.#call();
    let inode = this.#names.get(path);
    if (!inode && !create) throw new Error(`${path} is not there`);
    if (!inode) {
      const made = inode = { number: ++this.#inodes, now: new Uint8Array(), durable: new Uint8Array(), pending: [] };
      this.#rename((names) => void names.set(path, made));
    } else if (create) this.#change(inode, () => new Uint8Array());
    const file = inode;
    return {
      read: async (into, at) => void into.set(file.now.subarray(at, at + into.length)),
      write: async (bytes, at) => {
        this.#call();
        const own = bytes.slice();
        this.#change(file, (content) => {
          const grown = new Uint8Array(Math.max(content.length, at + own.length));
          grown.set(content);
          grown.set(own, at);
          return grown;
        });
      },
      sync: () => {
        this.#call();
        file.durable = file.now;
        file.pending = [];
      },
      close: () => {},
    };
  }

  identity(path: string): FileIdentity | null {
    const inode = this.#names.get(path);
    return inode ? { path, inode: inode.number, size: inode.now.length, changed: 0 } : null;
  }

  rename(from: string, to: string): void {
    this.#call();
    const inode = this.#names.get(from)!;
    this.#rename((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  remove(path: string): void {
    this.#call();
    this.#rename((names) => void names.delete(path));
  }

  syncFolder(): void {
    this.#call();
    this.#durable = new Map(this.#names);
    this.#pending = [];
  }

  #change(inode: Inode, change: (bytes: Uint8Array) => Uint8Array): void {
    inode.now = change(inode.now);
    inode.pending.push(change);
  }

  #rename(change: (names: Names) => void): void {
    change(this.#names);
    this.#pending.push(change);
  }

  /** Names and bytes as they are now. */
  contents(): Map<string, Uint8Array> {
    return new Map([...this.#names].map(([path, { now }]) => [path, now]));
  }

  /** The disk after the power has come back; `seed` decides what "some" is. */
  restarted(survival: Survival, seed: number): FragileDisk {
    let at = seed * 7919;
    const chance = () => (wave(at++) + 1) / 2;
    const kept = Math.floor(chance() * (this.#pending.length + 1));
    const changes = survival === "nothing"
      ? []
      : survival === "everything"
      ? this.#pending
      : this.#pending.slice(0, kept);
    const names = new Map(this.#durable);
    for (const change of changes) change(names);
    const disk = new FragileDisk();
    disk.#inodes = this.#inodes;
    const alive = new Map<Inode, Inode>();
    for (const [path, inode] of names) {
      let bytes = inode.durable;
      for (const change of inode.pending) {
        if (survival === "everything" || (survival === "some" && chance() < 0.5)) bytes = change(bytes);
      }
      const own = alive.get(inode) ?? { number: inode.number, now: bytes, durable: bytes, pending: [] };
      alive.set(inode, own);
      disk.#names.set(path, own);
    }
    disk.#durable = new Map(disk.#names);
    return disk;
  }
}
