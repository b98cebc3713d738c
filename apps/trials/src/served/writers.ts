import { setTimeout as sleep } from 'node:timers/promises';
import { connectNbd, type NbdClient } from '@downfold/nbd';
import type { Draw } from '../tools/draw.ts';
import { BLOCK, type Book } from './book.ts';

/** How many there are, each on a connection of its own. */
const WRITERS = 4;
/** Requests of each in flight at most. */
const DEPTH = 4;

/**
 * Four writers on one export. Blocks lie in turn: each cluster is everybody's, each block one writer's. What a flush covers is everybody's, too, whichever
 * connection it goes over (multi-conn).
 */
export class Writers {
  /** Blocks that were written and answered. */
  written = 0;
  readonly mistakes: string[] = [];
  readonly #clients: readonly NbdClient[];
  readonly #book: Book;
  readonly #from: Draw;
  /** How often they flush, and how often they write through: of 100 requests; seldom or never too, so that one does not hide what the other lacks. */
  readonly #flushes: number;
  readonly #fua: number;
  readonly #busy: Set<number> = new Set();
  #isOver = false;
  #isDying = false;
  #work: Promise<unknown> = Promise.resolve();

  private constructor(clients: readonly NbdClient[], book: Book, from: Draw) {
    this.#clients = clients;
    this.#book = book;
    this.#from = from;
    this.#flushes = from.pick([1, 6, 15]);
    this.#fua = from.pick([0, 1, 20]);
  }

  /** Connects them; they write from now on. */
  static async start(socket: string, book: Book, from: Draw): Promise<Writers> {
    const clients: NbdClient[] = [];
    for (let one = 0; one < WRITERS; one++)
      clients.push(await connectNbd({ server: { path: socket }, name: '' }));
    const writers = new Writers(clients, book, from);
    writers.#work = Promise.all(
      clients.flatMap((client, writer) =>
        Array.from({ length: DEPTH }, () => writers.#lane(client, writer)),
      ),
    );
    return writers;
  }

  /** Resolves once `count` more blocks were written, or something went wrong. */
  async wrote(count: number): Promise<void> {
    const until = this.written + count;
    while (this.written < until && !this.#isOver) await sleep(2);
  }

  /** They send no more, and what was sent is answered, and flushed. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#work;
    const flushed = this.#book.flush();
    await this.#try(async () => {
      await this.#clients[0]?.flush();
      flushed();
    });
    await Promise.all(this.#clients.map((client) => client.close()));
  }

  /** The server is about to be killed: that requests fail is no mistake any more. */
  expectDeath(): void {
    this.#isDying = true;
  }

  /** After the death of the server: nothing is under way any more. */
  async died(): Promise<void> {
    this.#isOver = true;
    await this.#work;
    const cut = { signal: AbortSignal.abort() };
    await Promise.all(this.#clients.map((client) => client.close(cut)));
  }

  async #lane(client: NbdClient, writer: number): Promise<void> {
    while (!this.#isOver) await this.#try(() => this.#request(client, writer));
  }

  async #try(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (cause) {
      this.#isOver = true;
      if (!this.#isDying) this.mistakes.push(`a request failed: ${(cause as Error).message}`);
    }
  }

  async #request(client: NbdClient, writer: number): Promise<void> {
    const kind = this.#from.integer(100);
    if (kind < this.#flushes) return this.#flush();
    const block = this.#own(writer);
    this.#busy.add(block);
    try {
      if (kind < 30) await this.#read(client, block);
      else if (kind < 36) await this.#zero(client, block);
      else await this.#write(client, block);
    } finally {
      this.#busy.delete(block);
    }
  }

  /** A block of a writer that has no request under way. */
  #own(writer: number): number {
    const each = Math.floor(this.#book.count / WRITERS);
    for (;;) {
      const block = this.#from.integer(each) * WRITERS + writer;
      if (!this.#busy.has(block)) return block;
    }
  }

  /** Over any connection. */
  async #flush(): Promise<void> {
    const flushed = this.#book.flush();
    await this.#clients[this.#from.integer(WRITERS)]?.flush();
    flushed();
  }

  async #write(client: NbdClient, block: number): Promise<void> {
    const fua = this.#isThrough();
    const { sequence, bytes } = this.#book.write(block);
    await client.write(block * BLOCK, bytes, { fua });
    this.#book.answered(block, sequence, { durable: fua });
    this.written += 1;
  }

  async #zero(client: NbdClient, block: number): Promise<void> {
    const [fua, mayTrim] = [this.#isThrough(), this.#from.chance(0.7)];
    const { sequence } = this.#book.zero(block);
    await client.writeZeroes(block * BLOCK, BLOCK, { fua, mayTrim });
    this.#book.answered(block, sequence, { durable: fua });
  }

  #isThrough(): boolean {
    return this.#from.integer(100) < this.#fua;
  }

  async #read(client: NbdClient, block: number): Promise<void> {
    const bytes = Buffer.alloc(BLOCK);
    await client.read(block * BLOCK, bytes);
    const wrong = this.#book.wrongBlock(block, bytes, 'answered');
    if (wrong !== null) this.mistakes.push(`in use: ${wrong}`);
  }
}
