import { caseContext } from '@downfold/compliance';
import type { CowSource, Image, PublishOptions, Staging, StagingToken } from '@downfold/image';
import {
  type CrashOptions,
  type CrashState,
  crashStates,
  type MemoryDisk,
  memoryBackend,
  type Recording,
  record,
} from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { qcow2 } from '../src/index.ts';
import { openState } from '../src/open.ts';
import { readSnapshots } from '../src/snapshots.ts';
import { Craft } from './craft.ts';
import { IMAGE } from './crash-lab.ts';
import { MortalStorage } from './mortal-storage.ts';
import { belowOf, openOn, range, readAll } from './support.ts';

/** What the staging showed from a moment on. */
interface Version {
  /** Length of the log when the change that made it was issued. */
  readonly issued: number;
  readonly content: Uint8Array;
}

/** A staging that somebody knows the token of. */
interface Epoch {
  /** Length of the log when it could be gone on with. */
  readonly from: number;
  readonly token: StagingToken;
  readonly versions: Version[];
  /** Flushes that resolved: at which length of the log, and the version that was durable then. */
  readonly flushes: { readonly resolved: number; readonly version: number }[];
}

/** When something was called and when it had resolved, as lengths of the log. */
interface Span {
  readonly called: number;
  resolved: number;
}

/** What an exploration found. */
export interface Exploration {
  /** Legal crash states, and those that differed and were judged. */
  readonly states: number;
  readonly judged: number;
  readonly violations: readonly string[];
}

/** The file that `copy` copies from. */
const SOURCE = '/source';
const NOISE = caseContext(11).bytes(65_536);

/** Never, as a length of the log. */
const NEVER = Number.POSITIVE_INFINITY;

/** An image that is staged on, on a recording disk, and what each crash of it must leave. */
export class StageLab {
  readonly recording: Recording;
  readonly #fill: CowSource | null;
  readonly #old: Uint8Array;
  #storage: MortalStorage;
  #image: Image;
  #staging!: Staging;
  #epochs: Epoch[] = [];
  #next: Uint8Array = new Uint8Array();
  #published: Span = { called: NEVER, resolved: NEVER };
  #discarded: Span = { called: NEVER, resolved: NEVER };
  #undo: PublishOptions['keepUndo'] = null;
  /** Until here an undo that was prepared by an earlier process may have left wrong copied flags. */
  #flagsUntil = 0;
  #pattern = 0;

  private constructor(
    recording: Recording,
    opened: Opened,
    old: Uint8Array,
    fill: CowSource | null,
  ) {
    this.recording = recording;
    this.#storage = opened.storage;
    this.#image = opened.image;
    this.#old = old;
    this.#fill = fill;
  }

  /** Starts recording on a disk that holds an image; all of that is durable. */
  static async start(disk: MemoryDisk, below: Uint8Array | null): Promise<StageLab> {
    if (!disk.names.has(SOURCE)) {
      await using source = await memoryBackend(disk).create(SOURCE, { secret: false });
      await source.write(hostOffset(0), NOISE);
    }
    const recording = record(disk);
    const opened = await open(recording);
    const fill = below === null ? null : belowOf(below);
    return new StageLab(recording, opened, await readAll(opened.image, fill), fill);
  }

  /** Starts recording on what a crash left, and goes on with the staging that was there; null when it had been published. */
  static async recover(
    disk: MemoryDisk,
    below: Uint8Array | null,
    token: StagingToken,
  ): Promise<StageLab | null> {
    const lab = await StageLab.start(disk, below);
    await lab.#goOn(token);
    // nobody else knows the token: it must do from the first moment on
    lab.#epochs = [
      { from: 0, token, versions: [{ issued: 0, content: lab.#next.slice() }], flushes: [] },
    ];
    return lab.#staging.published ? null : lab;
  }

  get token(): StagingToken {
    return this.#staging.token;
  }

  async stage(size: number = this.#old.length): Promise<void> {
    this.#staging = await this.#image.stage({
      virtualSize: byteLength(size),
      from: null,
      fill: this.#fill,
    });
    this.#next = new Uint8Array(size);
    this.#next.set(this.#old);
    this.#begin(this.#staging.token);
  }

  /** The process is killed; another goes on with the staging. */
  async killAndGoOn(): Promise<void> {
    const { token } = this.#staging;
    const opened = await open(this.recording);
    this.#storage = opened.storage;
    this.#image = opened.image;
    await this.#goOn(token);
    (this.#epochs.at(-1) as Epoch).versions.push({
      issued: this.#position,
      content: this.#next.slice(),
    });
  }

  /** The process is killed in a flush, where it calls `barrier`. */
  async dieInFlush(barrier: string): Promise<void> {
    this.#storage.killAt = barrier;
    const alive = await this.#staging.flush().then(
      () => true,
      () => false,
    );
    if (alive) throw new Error(`the flush did not call ${barrier}`);
  }

  async write(offset: number, length: number): Promise<void> {
    const bytes = this.#fresh(length);
    await this.#change(offset, bytes, () =>
      this.#staging.write(guestOffset(offset), bytes, { fill: this.#fill }),
    );
  }

  async copy(offset: number, length: number): Promise<void> {
    this.#pattern += length;
    const from = this.#pattern % (NOISE.length - length);
    const bytes = NOISE.subarray(from, from + length);
    await using source = await this.recording.backend.open(SOURCE, 'read');
    await this.#change(offset, bytes, () =>
      this.#staging.copyFrom(
        [
          {
            source,
            from: hostOffset(from),
            offset: guestOffset(offset),
            length: byteLength(length),
          },
        ],
        {
          fill: this.#fill,
        },
      ),
    );
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#change(offset, new Uint8Array(length), () =>
      this.#staging.writeZeroes(range(offset, length), { fill: this.#fill }),
    );
  }

  async flush(): Promise<void> {
    const epoch = this.#epochs.at(-1) as Epoch;
    const version = epoch.versions.length - 1;
    await this.#staging.flush();
    epoch.flushes.push({ resolved: this.#position, version });
  }

  /** A flush of the image itself while it is staged on. */
  async flushImage(): Promise<void> {
    await this.#image.flush();
  }

  async publish(keepUndo: PublishOptions['keepUndo'] = null): Promise<void> {
    this.#undo = keepUndo;
    this.#published = { called: this.#position, resolved: NEVER };
    await this.#staging.publish({ keepUndo });
    this.#published.resolved = this.#position;
  }

  async discard(): Promise<void> {
    this.#discarded = { called: this.#position, resolved: NEVER };
    await this.#staging.discard();
    this.#discarded.resolved = this.#position;
  }

  /** Judges every crash state; stops at the first violation when `one`. */
  async explore(options: CrashOptions & { readonly one?: boolean } = {}): Promise<Exploration> {
    const violations: string[] = [];
    let [states, judged] = [0, 0];
    for (const { disk, name, at, isNew } of this.crashes(options)) {
      states++;
      if (!isNew) continue;
      judged++;
      const problem = await this.#judge(disk, at).catch((cause: Error) => cause.message);
      if (problem !== null) violations.push(`${name}: ${problem}`);
      if (options.one === true && violations.length > 0) break;
    }
    return { states, judged, violations };
  }

  /** The crash states; `isNew`: no earlier one was the same and has to be judged alike. */
  *crashes(options: CrashOptions): Generator<CrashState & { readonly isNew: boolean }> {
    const seen = new Set<string>();
    for (const state of crashStates(this.recording, options)) {
      const key = `${this.#moments(state.at)} ${state.disk.digest()}`;
      yield { ...state, isNew: !seen.has(key) };
      seen.add(key);
    }
  }

  /** Whether a crash at `at` came after the staging could be gone on with, and before its end began. */
  isOpen(at: number): boolean {
    const begun = this.#epochs.some(({ from }) => from <= at);
    return begun && at < Math.min(this.#published.resolved, this.#discarded.called);
  }

  get #position(): number {
    return this.recording.log.length;
  }

  async #goOn(token: StagingToken): Promise<void> {
    await this.#image.reclaimLeaks({ keep: token });
    this.#flagsUntil = this.#position;
    const virtualSize = byteLength(token['virtualSize'] as number);
    this.#staging = await this.#image.stage({ virtualSize, from: token, fill: this.#fill });
    this.#next = await this.#shown(this.#staging, virtualSize);
  }

  #begin(token: StagingToken): void {
    const versions = [{ issued: 0, content: this.#next.slice() }];
    this.#epochs.push({ from: this.#position, token, versions, flushes: [] });
  }

  async #change(offset: number, bytes: Uint8Array, work: () => Promise<void>): Promise<void> {
    this.#next.set(bytes, offset);
    const version = { issued: this.#position, content: this.#next.slice() };
    (this.#epochs.at(-1) as Epoch).versions.push(version);
    await work();
  }

  #fresh(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < length; at += 4) view.setUint32(at, 0xabcd_0000 + ++this.#pattern);
    return bytes;
  }

  async #shown(staging: Staging, size: number): Promise<Uint8Array> {
    const content = new Uint8Array(size);
    await staging.read(guestOffset(0), content, this.#fill);
    return content;
  }

  /** How many moments have passed: states with the same bytes and the same count are judged alike. */
  #moments(at: number): number {
    const spans = [this.#published, this.#discarded].flatMap(({ called, resolved }) => [
      called,
      resolved,
    ]);
    const epochs = this.#epochs.flatMap(({ from, versions, flushes }) => [
      from,
      ...versions.map(({ issued }) => issued),
      ...flushes.map(({ resolved }) => resolved),
    ]);
    return [...spans, ...epochs].filter((moment) => moment <= at).length;
  }

  /** What a state breaks, or null. */
  async #judge(disk: MemoryDisk, at: number): Promise<string | null> {
    const epoch = this.#epochs.findLast(({ from }) => from <= at);
    const final = this.#next;
    const read = await openOn(disk, IMAGE, 'read');
    const shown = await readAll(read, this.#fill);
    const isNew = same(shown, final);
    if (!isNew && !same(shown, this.#old))
      return 'the image shows neither the old nor the new content';
    const changed = !same(final, this.#old);
    if (changed && isNew && at < this.#published.called)
      return 'the image changed before the publish';
    if (changed && !isNew && at >= this.#published.resolved) return 'the publish was lost';
    const preparing = at >= this.#published.called && this.#undo !== null && !isNew;
    const flags = preparing || at < this.#flagsUntil;
    const worse: string[] = [];
    const { leaks } = await read.check({
      onFinding: ({ severity, message }) => {
        if (severity === 'corruption' && !(flags && message.includes('copied flag')))
          worse.push(message);
      },
    });
    await read[Symbol.asyncDispose]();
    if (worse.length > 0) return worse[0] as string;
    if (leaks > 0 && at >= Math.min(this.#published.resolved, this.#discarded.resolved))
      return `${leaks} leaks when all is done`;
    if (isNew && changed && this.#undo !== null) {
      const kept = await lastSnapshot(disk, this.#old.length, this.#fill);
      if (!same(kept, this.#old)) return 'the undo snapshot does not show the old content';
    }
    const problem = await this.#reclaimed(disk.copy(), shown);
    return (
      problem ??
      (epoch === undefined ? null : await this.#goneOnWith(disk.copy(), at, epoch, shown))
    );
  }

  /** Without a token a reclaim leaves nothing of the staging. */
  async #reclaimed(disk: MemoryDisk, shown: Uint8Array): Promise<string | null> {
    await using image = await openOn(disk, IMAGE, 'write');
    await image.reclaimLeaks();
    return await this.#clean(image, shown, 'a reclaim');
  }

  /** With its token the staging is kept, and goes on to the publish. */
  async #goneOnWith(
    disk: MemoryDisk,
    at: number,
    epoch: Epoch,
    shown: Uint8Array,
  ): Promise<string | null> {
    await using image = await openOn(disk, IMAGE, 'write');
    const { token } = epoch;
    await image.reclaimLeaks({ keep: token });
    const virtualSize = byteLength(token['virtualSize'] as number);
    const staging = await image.stage({ virtualSize, from: token, fill: this.#fill });
    const problem = await this.#clean(image, shown, 'going on');
    if (problem !== null) return problem;
    if (staging.published) return at < this.#published.called ? 'published too early' : null;
    if (at >= this.#published.resolved) return 'the staging is not published';
    const staged = await this.#shown(staging, virtualSize).catch((cause: Error) => cause);
    if (staged instanceof Error) {
      if (at < this.#discarded.called) return staged.message;
      await staging.discard();
      return await this.#clean(image, shown, 'discarding again');
    }
    const lost = foreignByte(staged, epoch, at);
    if (lost !== null) return lost;
    await staging.publish({ keepUndo: null });
    return await this.#clean(image, staged, 'publishing');
  }

  async #clean(image: Image, content: Uint8Array, after: string): Promise<string | null> {
    const found: string[] = [];
    await image.check({ onFinding: ({ message }) => found.push(message) });
    if (found.length > 0) return `after ${after}: ${found[0]}`;
    return same(await readAll(image, this.#fill), content) ? null : `${after} changed the content`;
  }
}

/** A byte of a staging that is not what the last flush made durable, nor anything since; as a sentence, or null. */
function foreignByte(staged: Uint8Array, { versions, flushes }: Epoch, at: number): string | null {
  const durable = flushes.findLast(({ resolved }) => resolved <= at)?.version ?? 0;
  const legal = versions
    .slice(durable)
    .filter(({ issued }) => issued <= at)
    .map(({ content }) => content);
  if (legal.some((content) => same(content, staged))) return null;
  const byte = staged.findIndex(
    (value, index) => !legal.some((content) => content[index] === value),
  );
  return byte < 0 ? null : `byte ${byte} of the staging is older than its last flush, or foreign`;
}

/** An image open for writing, on storage whose process can be killed. */
interface Opened {
  readonly storage: MortalStorage;
  readonly image: Image;
}

async function open({ backend }: Recording): Promise<Opened> {
  const storage = new MortalStorage(await backend.open(IMAGE, 'write'));
  return { storage, image: await qcow2.open(storage, { mode: 'write' }) };
}

/** What the last internal snapshot shows. */
async function lastSnapshot(
  disk: MemoryDisk,
  size: number,
  fill: CowSource | null,
): Promise<Uint8Array> {
  const copy = disk.copy();
  const { backend } = record(copy);
  const storage = await backend.open(IMAGE, 'read');
  const snapshot = (await readSnapshots(await openState(storage, { mode: 'read' }))).at(-1);
  if (snapshot === undefined) throw new Error('there is no snapshot');
  const { l1TableOffset, l1Size } = snapshot;
  new Craft(copy, IMAGE).patch({ l1TableOffset, l1Size, size });
  await using image = await openOn(copy, IMAGE, 'read');
  return await readAll(image, fill);
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
