import { closeSync, existsSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { findKoffi } from '@downfold/native';
import type { Assignment, Ready } from './messages.ts';

const isSource = import.meta.url.endsWith('.ts');
/** Beside the source, or beside what was built of it. */
const SCRIPT = new URL(isSource ? './worker.ts' : './nbd-worker.js', import.meta.url);
const EXEC = isSource
  ? ['--conditions=@downfold/source', '--disable-warning=ExperimentalWarning']
  : [];

/** Threads that are started before somebody needs one: some 10 MiB each. */
const AHEAD = 2;

const RING = Buffer.alloc(8);
RING.writeBigUInt64LE(1n);

/** A thread that serves a connection at a time. */
export class Thread {
  readonly #worker: Worker;
  readonly #bell: number;
  /** Resolves when the thread is no more. */
  readonly gone: Promise<unknown>;
  #isLost = false;
  /** Who hears of that. */
  #onLost: (() => void) | null = null;

  constructor(worker: Worker, bell: number) {
    this.#worker = worker;
    this.#bell = bell;
    this.gone = new Promise((resolve) => worker.once('exit', resolve));
    void this.gone.then(() => closeSync(bell));
  }

  /** `onLost` is called should the thread die before `free`. */
  serve(assignment: Assignment, onLost: () => void): void {
    this.#onLost = onLost;
    if (this.#isLost) queueMicrotask(() => this.lost());
    else this.#worker.postMessage(assignment, [assignment.port]);
  }

  /** Its connection is over. */
  free(): void {
    this.#onLost = null;
  }

  /** It is no more. */
  lost(): void {
    this.#isLost = true;
    this.#onLost?.();
  }

  /** Wakes it when it waits: there is something to hear. */
  ring(): void {
    writeSync(this.#bell, RING);
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
    await this.gone;
  }
}

/** Threads for connections, kept for the next one when a connection is over. An idle one holds up no process. */
export class Threads {
  readonly #most: number;
  readonly #report: (error: unknown) => void;
  readonly #all: Set<Thread> = new Set();
  readonly #idle: Thread[] = [];
  #starting = 0;
  #isPrepared = false;
  #usable: boolean;

  /** @param most threads at once @param report hears why there are none */
  constructor(most: number, report: (error: unknown) => void) {
    this.#most = most;
    this.#report = report;
    this.#usable = most > 0 && findKoffi() !== null && existsSync(fileURLToPath(SCRIPT));
  }

  /** Those that wait for a connection. */
  get idle(): number {
    return this.#idle.length;
  }

  /** Starts some ahead: the first connections need not wait, nor compete with it. */
  prepare(): void {
    if (this.#isPrepared) return;
    this.#isPrepared = true;
    for (let left = Math.min(this.#most, AHEAD); left > 0; left--)
      void this.#startOne().then((thread) => thread !== null && this.giveBack(thread));
  }

  /** One that is idle, to be given back; null: there is none. */
  takeIdle(): Thread | null {
    return this.#idle.pop() ?? null;
  }

  /** As `takeIdle`, or a new one. Null: all are taken, or there are none to be had. */
  async take(): Promise<Thread | null> {
    return this.takeIdle() ?? (await this.#startOne());
  }

  async #startOne(): Promise<Thread | null> {
    if (!this.#usable || this.#all.size + this.#starting >= this.#most) return null;
    this.#starting += 1;
    try {
      return await this.#start();
    } catch (cause) {
      // one that does not start once will not start for the next connection either
      this.#usable = false;
      this.#report(cause);
      return null;
    } finally {
      this.#starting -= 1;
    }
  }

  /** Takes back a thread that has nothing to do. */
  giveBack(thread: Thread): void {
    if (this.#all.has(thread)) this.#idle.push(thread);
  }

  /** Ends them; none serves any more. */
  async close(): Promise<void> {
    this.#usable = false;
    await Promise.all([...this.#all].map((thread) => thread.end()));
  }

  async #start(): Promise<Thread> {
    const worker = new Worker(SCRIPT, { execArgv: EXEC });
    const { bell } = await new Promise<Ready>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`a thread ended at its start: ${code}`)));
    });
    worker.on('error', (error) => this.#report(error));
    worker.unref();
    const thread = new Thread(worker, bell);
    this.#all.add(thread);
    void thread.gone.then(() => {
      this.#all.delete(thread);
      const at = this.#idle.indexOf(thread);
      if (at >= 0) this.#idle.splice(at, 1);
      thread.lost();
    });
    if (!this.#usable) await thread.end();
    return thread;
  }
}
