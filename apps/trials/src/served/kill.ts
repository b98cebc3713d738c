import { readdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { journalPath } from '@downfold/commit';
import { Bench } from '@downfold/server/test/support.ts';
import { recordsIn } from '../kill/journal-file.ts';
import { type Draw, draw } from '../tools/draw.ts';
import { Book } from './book.ts';
import { makeStampedChain } from './chain.ts';
import { diskOnFiles } from './disk-on.ts';
import { inTurn, jobOf, type Kind } from './jobs.ts';
import { leftBehind, shown } from './judge.ts';
import { Life } from './life.ts';
import { anyMoment, comes, type Moment, speedUntil } from './moment.ts';
import { BLOCKS, deepen, forget, type RoundOptions, type RoundOutcome, replay } from './round.ts';
import { Snapshots } from './snapshots.ts';
import type { Writers } from './writers.ts';

/** Kills of one job at most: the first time, and while it is gone on with. */
const MOST_KILLS = 3;
/** Longest until a server that goes on with a job is killed again, in milliseconds. */
const RESUMED = 250;

/**
 * The same, and while each job works the server is killed (`kill -9`) at a random moment and started again with `--resume`, some of them more than once.
 * After each kill QEMU reads the files, before anybody else does: what was flushed is there. After each start NBD shows just that.
 */
export async function tryKills(options: RoundOptions): Promise<RoundOutcome> {
  await using bench = new Bench(options.environment);
  const round = new KillRound(bench, options);
  await round.run();
  const what = replay('kill', options.seed);
  return { ...round.outcome, problems: round.outcome.problems.map((one) => `${what}: ${one}`) };
}

class KillRound {
  readonly outcome: { -readonly [Key in keyof RoundOutcome]: RoundOutcome[Key] } & {
    problems: string[];
  } = { blocks: 0, jobs: 0, snapshots: 0, kills: 0, problems: [] };
  readonly #bench: Bench;
  readonly #options: RoundOptions;
  readonly #from: Draw;
  readonly #book = new Book(BLOCKS);
  readonly #snapshots = new Snapshots();
  /** The image that a user names. */
  #leaf = '';
  /** Where the story is, for people. */
  #at = '';

  constructor(bench: Bench, options: RoundOptions) {
    this.#bench = bench;
    this.#options = options;
    this.#from = draw(options.seed);
  }

  async run(): Promise<void> {
    const { outcome } = this;
    this.#leaf = await makeStampedChain(this.#bench.path, this.#book, this.#from);
    let life = await Life.start(this.#bench, this.#leaf);
    const { kinds = inTurn(this.#from) } = this.#options;
    for (const [index, kind] of kinds.entries()) {
      const missing = (this.#options.blocks * (index + 1)) / kinds.length - outcome.blocks;
      life = await this.#killed(kind, life, Math.max(0, missing));
      outcome.jobs += 1;
      if (outcome.problems.length > 0) break;
    }
    if (outcome.problems.length === 0) await this.#end(life);
    outcome.snapshots = this.#snapshots.count;
  }

  /** One job that is killed. Resolves with the life after it, in which nothing is under way. */
  async #killed(kind: Kind, first: Life, blocks: number): Promise<Life> {
    const { outcome } = this;
    let life = first;
    let writers = await this.#writers(life);
    await deepen(life, writers, this.#snapshots, this.#from);
    await writers.wrote(blocks);
    this.#leaf = (await life.active()).path;
    const moment = anyMoment(kind, this.#from);
    this.#at = `${kind}, ${moment.milliseconds} ms after ${moment.after}`;
    await this.#start(kind, moment, life);
    for (let kills = 1; ; kills++) {
      const died = await this.#kill(life, writers);
      if (died === null) return life;
      life = died;
      writers = await this.#writers(life);
      if (kills === MOST_KILLS || this.#from.chance(0.6)) break;
      const milliseconds = this.#from.integer(RESUMED);
      this.#at += `, and ${milliseconds} ms after the start`;
      await sleep(milliseconds);
    }
    await life.idle();
    await writers.wrote(50);
    await this.#stop(writers);
    outcome.problems.push(...life.complaints.map((line) => `${this.#at}: ${line}`));
    await this.#noJournals(life);
    await forget(this.#bench, life);
    this.#leaf = (await life.active()).path;
    return life;
  }

  /** Starts a job and waits until its moment has come. */
  async #start(kind: Kind, moment: Moment, life: Life): Promise<void> {
    const speed = speedUntil(moment, this.#from);
    const { name, args } = jobOf(kind, await life.layers(), speed, this.#from);
    const events = life.served.qmp.events();
    const saidBefore = life.served.server.stderr.length;
    await life.served.execute(name, args);
    const journal = journalPath(this.#leaf);
    const [snapshots, from] = [this.#snapshots, this.#from];
    await comes(moment, { life, events, journal, saidBefore, snapshots, from });
  }

  /** Kills the server, looks, and starts it again. Null: something is wrong. */
  async #kill(life: Life, writers: Writers): Promise<Life | null> {
    const { outcome } = this;
    writers.expectDeath();
    await life.kill();
    await writers.died();
    this.#count(writers);
    outcome.kills += 1;
    const disk = await diskOnFiles(this.#leaf, this.#bench.file(this.#snapshots.last));
    const left = await leftBehind(this.#bench, disk.images, disk.active, {
      book: this.#book,
      mayLeak: true,
    });
    outcome.problems.push(...left.problems.map((one) => `killed ${this.#at}: ${one}`));
    if (outcome.problems.length > 0) return null;
    this.#book.settle(left.disk);
    this.#leaf = disk.named;
    const next = await Life.start(this.#bench, disk.named, '--resume');
    const active = (await next.active()).path;
    if (active !== disk.active)
      outcome.problems.push(`started after ${this.#at}: serves ${active}, not ${disk.active}`);
    const { disk: seen, problems } = await shown(this.#bench, this.#book, 'answered');
    outcome.problems.push(...problems.map((one) => `started after ${this.#at}: ${one}`));
    if (!seen.equals(left.disk))
      outcome.problems.push(`started after ${this.#at}: shows another disk than QEMU read`);
    return next;
  }

  async #writers(life: Life): Promise<Writers> {
    const seed = this.#options.seed * 1000 + this.outcome.kills + this.outcome.jobs;
    return life.writers(this.#book, draw(seed));
  }

  async #stop(writers: Writers): Promise<void> {
    await writers.stop();
    this.#count(writers);
  }

  #count(writers: Writers): void {
    this.outcome.blocks += writers.written;
    this.outcome.problems.push(...writers.mistakes.map((one) => `${this.#at}: ${one}`));
  }

  /** Of a job that had begun; one that was killed before leaves a journal without a record. */
  async #noJournals({ served }: Life): Promise<void> {
    const names = await readdir(this.#bench.path);
    for (const name of names.filter((one) => one.endsWith('.downfold')))
      if ((await recordsIn(this.#bench.file(name))).length > 0)
        this.outcome.problems.push(
          `${this.#at}: ${name} is left behind; the server said: ${served.server.stderr}`,
        );
  }

  /** Nobody writes any more: what NBD shows is what the files hold when the server has ended. */
  async #end(life: Life): Promise<void> {
    const { problems } = this.outcome;
    problems.push(...(await shown(this.#bench, this.#book, 'answered')).problems);
    const images = (await life.layers()).map(({ path }) => path);
    const { code, stderr } = await life.served.stop();
    if (code !== 0) problems.push(`the server ended with ${code}: ${stderr}`);
    const active = images.at(-1) ?? '';
    problems.push(
      ...(await leftBehind(this.#bench, images, active, { book: null, mayLeak: true })).problems,
    );
  }
}
