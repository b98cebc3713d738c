import { readSync } from 'node:fs';
import type { Control } from './control.ts';
import { FLAG } from './control.ts';
import type { ServingThread } from './rooms.ts';
import { EAGAIN, EINTR, POLLIN, POLLOUT, type Region, type System } from './system.ts';

/** Milliseconds: a thread that waits looks up as often, so that its process can end. */
const LOOK_UP = 500;

/** The connection is over, and nothing of it can be saved. */
export class Gone extends Error {
  override readonly name: string = 'Gone';
}

/** Waits for a socket and for the bell by which the server calls the thread. */
export class Waiting {
  readonly #system: System;
  readonly #socket: number;
  readonly #bell: number;
  readonly #control: Control;
  readonly #entries: Region;
  /** Two of `struct pollfd`. */
  readonly #words: Int32Array;
  readonly #counter = Buffer.alloc(8);
  /** The bell rang since this was last made false. At first it may have, unheard. */
  rung = true;
  /** Milliseconds that the client made it wait for its room, in all. */
  forRoom = 0;

  constructor({ system, bell, rooms }: ServingThread, socket: number, control: Control) {
    this.#system = system;
    this.#socket = socket;
    this.#bell = bell;
    this.#control = control;
    this.#entries = rooms.poll;
    this.#words = new Int32Array(rooms.poll.bytes.buffer, 0, 4);
  }

  /** Waits until the socket has something, when `reads`, or the bell rings, or a while. True: the socket has. */
  readable(reads: boolean): boolean {
    return this.#wait(reads ? POLLIN : 0);
  }

  /** Waits until the socket takes bytes. @throws Gone when the connection is to end at once */
  writable(): void {
    const begun = performance.now();
    while (!this.#wait(POLLOUT)) if (this.#control.has(FLAG.kill)) throw new Gone('was ended');
    this.forRoom += performance.now() - begun;
  }

  /** After a call on the socket failed. True: it is to be made again at once. @param outcome what it returned @throws Gone */
  isAgain(outcome: number): boolean {
    if (outcome === -EINTR) return true;
    if (outcome === -EAGAIN) return false;
    throw new Gone(`the socket failed with errno ${-outcome}`);
  }

  #wait(events: number): boolean {
    const words = this.#words;
    // a negative one is left out, with its hang-ups
    words[0] = events === 0 ? -1 : this.#socket;
    words[1] = events;
    words[2] = this.#bell;
    words[3] = POLLIN;
    if (this.#system.poll(this.#entries.address, 2, LOOK_UP) <= 0) return false;
    if ((words[3] as number) >>> 16 !== 0) {
      readSync(this.#bell, this.#counter);
      this.rung = true;
    }
    return (words[1] as number) >>> 16 !== 0;
  }
}
