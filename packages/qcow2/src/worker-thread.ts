import type { Worker } from 'node:worker_threads';

/** A thread that answers one message after the other. It keeps the process alive only while it has one to answer. */
export class WorkerThread {
  readonly #worker: Worker;
  #asked: PromiseWithResolvers<unknown> | null = null;

  /** @param name of the module that it runs, which lies beside this one, as a source or built */
  constructor(name: string) {
    // taken here: who never needs a thread does not load what makes them
    const { Worker } = process.getBuiltinModule('node:worker_threads');
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const worker = new Worker(new URL(`./${name}.${extension}`, import.meta.url), {
      // of the options that this process was started with none is for it
      execArgv: [],
      // it makes next to no objects
      resourceLimits: { maxYoungGenerationSizeMb: 1, maxOldGenerationSizeMb: 16 },
    });
    worker.unref();
    worker.on('message', (answer) => this.#take()?.resolve(answer));
    worker.on('error', (cause) => this.#take()?.reject(cause));
    worker.on('exit', () => this.#take()?.reject(new Error('a thread ended before its work did')));
    this.#worker = worker;
  }

  get busy(): boolean {
    return this.#asked !== null;
  }

  /** Asks; must not be busy. */
  async run<Question, Answer>(question: Question): Promise<Answer> {
    const asked = Promise.withResolvers<unknown>();
    this.#asked = asked;
    this.#worker.ref();
    this.#worker.postMessage(question);
    return (await asked.promise) as Answer;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #take(): PromiseWithResolvers<unknown> | null {
    const asked = this.#asked;
    this.#asked = null;
    this.#worker.unref();
    return asked;
  }
}
