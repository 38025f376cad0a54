/** Pipes and devices as outputs: bytes go out in order, as they come. */
import type { ByteSink } from "./bytes.ts";
import { closeDescriptor, endPipe, openPipe } from "./disk.ts";
import { PipeWriter } from "./pipe_writer.ts";
import { writeError } from "./system_errors.ts";

/** A descriptor of its own is closed at the end; standard output (1) is nobody's. */
export class StreamSink implements ByteSink {
  readonly sequential = true;
  #position = 0;
  #fd: number | null;
  #writer: PipeWriter | null = null;
  #closed = false;

  /** @param fd null: a named pipe, which is opened with the first bytes, when it has a reader */
  constructor(readonly path: string, fd: number | null) {
    this.#fd = fd;
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    if (at !== this.#position) throw new RangeError(`${this.path} is at ${this.#position}, cannot write at ${at}`);
    await (await this.#open()).write(bytes);
    this.#position += bytes.length;
  }

  async #open(): Promise<PipeWriter> {
    if (this.#writer) return this.#writer;
    try {
      this.#fd ??= await openPipe(this.path);
    } catch (error) {
      throw writeError(error, this.path);
    }
    return this.#writer = new PipeWriter(this.#fd, this.path);
  }

  async read(): Promise<void> {
    throw new RangeError(`${this.path} cannot be read back`);
  }

  async commit(): Promise<void> {
    await this.#writer?.drain();
    await this[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer?.[Symbol.asyncDispose]();
    if (this.#fd === null && !this.#closed) endPipe(this.path);
    else if (this.#fd !== null && this.#fd > 1) closeDescriptor(this.#fd);
    this.#fd = this.#writer = null;
    this.#closed = true;
  }
}
