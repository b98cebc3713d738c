import { type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { SharedMapReader } from '@downfold/units';
import { DATA_HEADER_BYTES, putDataHeader } from '../../codec/reply.ts';
import { headerBytes, isRequest, lengthAt, payloadAt } from '../../codec/request.ts';
import { readU64 } from '../../codec/words.ts';
import { COMMAND, COMMAND_FLAG, MAX_PAYLOAD } from '../../protocol.ts';
import { Control, FLAG } from './control.ts';
import type { Assignment, FromThread, ToThread } from './messages.ts';
import { Outgoing } from './outgoing.ts';
import { Passing } from './passing.ts';
import { LONGEST_READ, type ServingThread } from './rooms.ts';
import type { Region, System } from './system.ts';
import { Gone, Waiting } from './waiting.ts';

/** What the socket holds: with less, server and client wait for one another twice in every reply of 256 KiB. */
const SENT_BYTES = 2 << 20;
/** So much the server may leave untaken before nothing more is read. */
const UNTAKEN_BYTES = 1 << 20;

/**
 * One connection, served by a thread of its own: reads whose bytes the map knows it answers by itself; all other requests, byte for byte, go to the
 * server, whose replies come back through it. Only the thread touches the socket. While it looks at a file it is inside of the map.
 */
export class Serving {
  readonly #system: System;
  readonly #of: Assignment;
  readonly #extended: boolean;
  readonly #header: number;
  readonly #port: MessagePort;
  readonly #control: Control;
  readonly #map: SharedMapReader;
  readonly #waiting: Waiting;
  readonly #out: Outgoing;
  readonly #passing: Passing;
  readonly #input: Region;
  /** What the client had sent before: comes before what the socket has. */
  #begun: Uint8Array;
  /** Bytes [0, end) of the input came in, and were not looked at. */
  #end = 0;
  /** Headers of reads that wait for the disk. */
  #later: Buffer[] = [];
  /** Headers of reads that the thread could not do after all: they are passed on as soon as no request is cut. */
  #undone: Buffer[] = [];
  #ended = false;
  /** What came in is no request, or the last one: all that follows is the server's matter. */
  #isDone = false;
  #replies = 0;
  #served = 0;
  #servedBytes = 0;

  constructor(thread: ServingThread, of: Assignment) {
    const { system, rooms } = thread;
    system.widen(of.socket, SENT_BYTES);
    this.#system = system;
    this.#of = of;
    this.#extended = of.style === 'extended';
    this.#header = headerBytes(this.#extended);
    this.#port = of.port;
    this.#control = new Control(of.control);
    this.#map = new SharedMapReader(of.map, of.reader);
    this.#waiting = new Waiting(thread, of.socket, this.#control);
    this.#out = new Outgoing(thread, of.socket, of.style, this.#waiting);
    this.#passing = new Passing(of.port);
    this.#input = rooms.input;
    this.#begun = of.begun;
  }

  /** Serves until the connection is over. Returns why, when nobody asked for that. */
  run(): string | null {
    try {
      for (;;) {
        if (this.#control.has(FLAG.kill)) return null;
        const isLast = this.#hear();
        const begun = performance.now() - this.#waiting.forRoom;
        this.#takeInput();
        this.#readLater();
        // how fast the client takes its answers is its own affair
        this.#count(performance.now() - this.#waiting.forRoom - begun);
        this.#out.flush();
        this.#tellSent();
        if (isLast) return null;
        this.#receive();
      }
    } catch (cause) {
      if (cause instanceof Gone) return cause.message;
      throw cause;
    }
  }

  /** Takes what the server has to say. True: it was the last. */
  #hear(): boolean {
    if (!this.#waiting.rung) return false;
    this.#waiting.rung = false;
    for (;;) {
      const message: ToThread | undefined = receiveMessageOnPort(this.#port)?.message;
      if (message === undefined) return false;
      if ('end' in message) return true;
      for (const reply of message.replies) for (const piece of reply) this.#out.append(piece);
      this.#replies += message.replies.length;
    }
  }

  /** What came in, as far as it is whole. */
  #takeInput(): void {
    const { bytes } = this.#input;
    let at = 0;
    while (at < this.#end) {
      this.#passUndone();
      const { missing } = this.#passing;
      if (missing > 0 || this.#isDone) {
        if (missing === 0) this.#passing.begin(this.#end - at);
        const until = Math.min(this.#end, at + this.#passing.missing);
        this.#passing.take(bytes, at, until);
        at = until;
      } else if (this.#end - at < this.#header) break;
      else at = this.#request(at);
    }
    if (at > 0) bytes.copyWithin(0, at, this.#end);
    this.#end -= at;
    this.#passUndone();
    this.#passing.post();
  }

  /** A request begins at byte `at`. Returns where what follows begins. */
  #request(at: number): number {
    const { bytes } = this.#input;
    const payload = payloadAt(bytes, at, this.#extended);
    const isLast = bytes.readUInt16BE(at + 6) === COMMAND.disconnect;
    this.#isDone = isLast || !isRequest(bytes, at, this.#extended) || payload > MAX_PAYLOAD;
    if (this.#isDone) {
      // what was asked before comes before
      this.#readLater();
      return at;
    }
    if (this.#mayRead(bytes, at)) {
      const outcome = this.#read(bytes, at, true);
      if (outcome === 'later') this.#later.push(Buffer.from(bytes.subarray(at, at + this.#header)));
      if (outcome !== 'unknown') return at + this.#header;
    }
    this.#passing.begin(this.#header + payload);
    return at;
  }

  /** Whether a request is a read without peculiarities: the server has the others, and says what is wrong with them. */
  #mayRead(bytes: Buffer, at: number): boolean {
    const { style, size, blockSize } = this.#of;
    if (bytes.readUInt16BE(at + 6) !== COMMAND.read) return false;
    const flags = bytes.readUInt16BE(at + 4);
    if (flags !== 0 && (style === 'simple' || flags !== COMMAND_FLAG.df)) return false;
    const [offset, length] = [readU64(bytes, at + 16), lengthAt(bytes, at, this.#extended)];
    const most = Math.min(LONGEST_READ, blockSize.maximumPayload);
    if (!(length > 0 && length <= most && offset <= size - length)) return false;
    if (offset % blockSize.minimum !== 0 || length % blockSize.minimum !== 0) return false;
    return !this.#control.has(FLAG.passAll);
  }

  /**
   * Answers the read whose header is at byte `at`. `later`: not without waiting for the disk. `unknown`: where the bytes lie is not known, or
   * they could not be read; nothing was answered.
   */
  #read(bytes: Buffer, at: number, now: boolean): 'served' | 'later' | 'unknown' {
    const [offset, length] = [readU64(bytes, at + 16), lengthAt(bytes, at, this.#extended)];
    const place = this.#out.place();
    this.#map.enter();
    const outcome = this.#fill(place, offset, offset + length, now);
    this.#map.leave();
    if (outcome !== 'served') return outcome;
    const { style } = this.#of;
    const header = place - DATA_HEADER_BYTES[style];
    putDataHeader(this.#out.bytes, header, { style, offset, length }, bytes, at + 8);
    this.#out.add(length);
    this.#served += 1;
    this.#servedBytes += length;
    return 'served';
  }

  /** Puts bytes [offset, end) of the export to a place. */
  #fill(place: number, offset: number, end: number, now: boolean): 'served' | 'later' | 'unknown' {
    const [map, out, system] = [this.#map, this.#out, this.#system];
    for (let at = offset; at < end; at += map.length) {
      if (!map.find(at, end)) return 'unknown';
      const to = place + (at - offset);
      if (map.descriptor === null) {
        out.bytes.fill(0, to, to + map.length);
        continue;
      }
      const read = now ? system.readNow : system.read;
      if (read(map.descriptor, out.address + to, map.length, map.host) === map.length) continue;
      if (!now) return 'unknown';
      this.#announce(at, end);
      return 'later';
    }
    return 'served';
  }

  /** Tells the system what will be read, so that the disk has all of it to do at once. */
  #announce(from: number, end: number): void {
    const map = this.#map;
    for (let at = from; at < end && map.find(at, end); at += map.length)
      if (map.descriptor !== null) this.#system.willRead(map.descriptor, map.host, map.length);
  }

  /** Reads that wait for the disk: after all others were answered. */
  #readLater(): void {
    if (this.#later.length === 0) return;
    this.#out.flush();
    for (const header of this.#later)
      if (this.#read(header, 0, false) === 'unknown') this.#undone.push(header);
    this.#later = [];
    this.#passUndone();
    this.#passing.post();
  }

  /** Passes on what the thread could not do, unless the rest of another request is still to come. */
  #passUndone(): void {
    if (this.#undone.length === 0 || this.#passing.missing > 0) return;
    for (const header of this.#undone) {
      this.#passing.begin(header.length);
      this.#passing.take(header, 0, header.length);
    }
    this.#undone = [];
  }

  #count(milliseconds: number): void {
    if (this.#served === 0) return;
    this.#control.count(this.#served, this.#servedBytes, milliseconds);
    this.#served = this.#servedBytes = 0;
  }

  #tellSent(): void {
    if (this.#replies === 0) return;
    this.#tell({ sent: this.#replies });
    this.#replies = 0;
  }

  /** Waits for something to do, and takes what the client sends. */
  #receive(): void {
    if (this.#begun.length > 0) {
      this.#takeBegun();
      return;
    }
    if (!this.#waiting.readable(!this.#ended && this.#isWelcome())) return;
    const { bytes, address } = this.#input;
    const room = bytes.length - this.#end;
    const count = this.#system.receive(this.#of.socket, address + this.#end, room);
    if (count > 0) this.#end += count;
    else if (count < 0) this.#waiting.isAgain(count);
    else {
      this.#ended = true;
      this.#tell({ ended: true });
    }
  }

  #takeBegun(): void {
    const { bytes } = this.#input;
    const part = this.#begun.subarray(0, bytes.length - this.#end);
    bytes.set(part, this.#end);
    this.#end += part.length;
    this.#begun = this.#begun.subarray(part.length);
  }

  /** Whether the server takes more requests; those that have begun it always does. */
  #isWelcome(): boolean {
    if (this.#passing.missing > 0 || this.#untaken() <= UNTAKEN_BYTES) return true;
    this.#control.starve();
    return this.#untaken() <= UNTAKEN_BYTES;
  }

  #untaken(): number {
    return this.#control.untaken(this.#passing.passed);
  }

  #tell(message: FromThread): void {
    this.#port.postMessage(message);
  }
}
