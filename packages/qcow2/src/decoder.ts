import { availableParallelism } from 'node:os';
import { type Bad, type Packed, unpackClusters } from './unpack.ts';
import { WorkerThread } from './worker-thread.ts';

/** Threads that decompress, at most: some 10 MiB each, beside the main one, which reads and writes meanwhile. */
const MOST_THREADS = 2;
/** Jobs that have their memory: one for each thread to work on, and one that is read or fetched meanwhile. */
const MOST_JOBS = 2 * MOST_THREADS;
/** Bytes that are decompressed on the main thread before threads are started: to start them takes as long as these do. */
const BYTES_BEFORE_THREADS = 64 << 20;
/** After so long without jobs threads are ended, and memory is let go. */
const IDLE_MILLISECONDS = 2000;

/** Memory of a job, shared with threads: what is read from the file, and what is decompressed from it. Used again and again: fresh pages cost more. */
export interface JobMemory {
  readonly packed: Uint8Array;
  readonly bytes: Uint8Array;
}

/**
 * Decompresses clusters: on this thread first, and those of zlib in threads when there are many. What comes of it is the same. `MOST_JOBS` are under way at
 * once, of a MiB and a half each where clusters have 64 KiB; others wait.
 */
export class Decoder {
  readonly #most: number;
  readonly #before: number;
  #threads: WorkerThread[] = [];
  #done = 0;
  #jobs = 0;
  readonly #free: JobMemory[] = [];
  readonly #waitingJobs: (() => void)[] = [];
  readonly #waiting: { readonly job: Packed; readonly settle: Settle }[] = [];
  #idle: NodeJS.Timeout | null = null;

  /** `most`: threads; 0: everything happens on this one. `before`: bytes of clusters that are decompressed on this thread first. */
  constructor(most: number = threadsHere(), before: number = BYTES_BEFORE_THREADS) {
    this.#most = most;
    this.#before = before;
  }

  /** Threads that run now. */
  get threads(): number {
    return this.#threads.length;
  }

  /** Runs `work` with memory for at least so many bytes, which is another's when it has settled. */
  async withMemory<T>(
    packed: number,
    bytes: number,
    work: (memory: JobMemory) => Promise<T>,
  ): Promise<T> {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    if (this.#jobs < MOST_JOBS) this.#jobs += 1;
    else await new Promise<void>((resolve) => this.#waitingJobs.push(resolve));
    const before = this.#free.pop();
    const memory = {
      packed: atLeast(packed, before?.packed),
      bytes: atLeast(bytes, before?.bytes),
    };
    try {
      return await work(memory);
    } finally {
      this.#free.push(memory);
      const next = this.#waitingJobs.shift();
      if (next === undefined) this.#jobs -= 1;
      else next();
      if (this.#jobs === 0)
        this.#idle = setTimeout(() => void this.close(), IDLE_MILLISECONDS).unref();
    }
  }

  /** Resolves with the first cluster that is bad, or null. @throws Error when a thread ended by itself, as for want of memory */
  async decode(job: Packed): Promise<Bad | null> {
    this.#done += job.starts.length * job.clusterSize;
    // zstd takes a quarter of the time: less than to hand it over and back
    if (job.zstd || this.#most === 0 || this.#done <= this.#before) return unpackClusters(job);
    const { promise, resolve, reject } = Promise.withResolvers<Bad | null>();
    this.#waiting.push({ job, settle: { resolve, reject } });
    this.#work();
    return promise;
  }

  /** Ends the threads, which must have no work, and lets the memory go. */
  async close(): Promise<void> {
    if (this.#idle !== null) clearTimeout(this.#idle);
    this.#idle = null;
    this.#done = 0;
    this.#free.length = 0;
    const ending = this.#threads;
    this.#threads = [];
    for (const thread of ending) await thread.end();
  }

  #work(): void {
    while (this.#waiting.length > 0) {
      const thread = this.#freeThread();
      const next = thread === null ? undefined : this.#waiting.shift();
      if (thread === null || next === undefined) return;
      void this.#run(thread, next.job, next.settle);
    }
  }

  async #run(thread: WorkerThread, job: Packed, settle: Settle): Promise<void> {
    try {
      settle.resolve(await thread.run<Packed, Bad | null>(job));
    } catch (cause) {
      this.#threads = this.#threads.filter((one) => one !== thread);
      settle.reject(cause);
    }
    this.#work();
  }

  #freeThread(): WorkerThread | null {
    const free = this.#threads.find(({ busy }) => !busy);
    if (free !== undefined) return free;
    if (this.#threads.length >= this.#most) return null;
    const thread = new WorkerThread('decode-worker');
    this.#threads.push(thread);
    return thread;
  }
}

type Settle = Pick<PromiseWithResolvers<Bad | null>, 'resolve' | 'reject'>;

/** The memory there is, where it is enough. */
function atLeast(bytes: number, before: Uint8Array | undefined): Uint8Array {
  if (before !== undefined && before.length >= bytes) return before;
  return new Uint8Array(new SharedArrayBuffer(bytes));
}

/** `DOWNFOLD_THREADS=0` has everything happen on the main thread. */
function threadsHere(): number {
  if (process.env['DOWNFOLD_THREADS'] === '0' || availableParallelism() < 2) return 0;
  return MOST_THREADS;
}

/** Of all images of this process: they share the threads. */
export const decoder: Decoder = new Decoder();
