import { DATA_HEADER_BYTES } from '../../codec/reply.ts';
import type { Style } from '../../protocol.ts';
import { FIRST_DATA, PACKED_BYTES, type ServingThread } from './rooms.ts';
import type { Region, System } from './system.ts';
import type { Waiting } from './waiting.ts';

/** What is to be sent: replies packed one after another, sent in one call. */
export class Outgoing {
  readonly #system: System;
  readonly #socket: number;
  readonly #waiting: Waiting;
  readonly #region: Region;
  readonly #header: number;
  /** Bytes [start, end) are to be sent. */
  #start = 0;
  #end = 0;

  constructor({ system, rooms }: ServingThread, socket: number, style: Style, waiting: Waiting) {
    this.#system = system;
    this.#socket = socket;
    this.#waiting = waiting;
    this.#header = DATA_HEADER_BYTES[style];
    this.#region = rooms.output;
  }

  get bytes(): Buffer {
    return this.#region.bytes;
  }

  get address(): number {
    return this.#region.address;
  }

  /** Where the data of a reply may be put, `LONGEST_READ` at most; its header comes right before. Sends what is there when that is enough. */
  place(): number {
    if (this.#end - this.#start >= PACKED_BYTES) this.flush();
    if (this.#end === this.#start) this.#start = this.#end = FIRST_DATA - this.#header;
    return this.#end + this.#header;
  }

  /** A reply is where `place` said, with so much data. */
  add(length: number): void {
    this.#end += this.#header + length;
  }

  /** Copies bytes. */
  append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      if (this.#end === this.#region.bytes.length) this.flush();
      const part = bytes.subarray(done, done + this.#region.bytes.length - this.#end);
      this.#region.bytes.set(part, this.#end);
      this.#end += part.length;
      done += part.length;
    }
  }

  /** Sends all. @throws Gone */
  flush(): void {
    while (this.#start < this.#end) {
      const length = this.#end - this.#start;
      const count = this.#system.send(this.#socket, this.#region.address + this.#start, length);
      if (count >= 0) this.#start += count;
      else if (!this.#waiting.isAgain(count)) this.#waiting.writable();
    }
    this.#start = this.#end = 0;
  }
}
