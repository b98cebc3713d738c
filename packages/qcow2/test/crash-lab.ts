import type {
  BackingReference,
  CowSource,
  Image,
  ImageCopyPiece,
  ImageMark,
} from '@downfold/image';
import {
  type CrashOptions,
  crashStates,
  MemoryDisk,
  type Recording,
  record,
} from '@downfold/storage-memory';
import { byteLength, guestOffset, hostOffset } from '@downfold/units';
import { type Qcow2, type Qcow2CreateOptions, qcow2 } from '../src/index.ts';
import { MortalStorage } from './mortal-storage.ts';
import { belowOf, openOn, range, readAll } from './support.ts';

const SECTOR = 512;

/** The image under test on every disk here. */
export const IMAGE = '/image';

/** What a crash state shows that it must not. */
export type ViolationKind =
  /** The image does not open, or cannot be read. */
  | 'unreadable'
  /** Its check finds a corruption. */
  | 'corrupt'
  /** Clusters are leaked although everything was flushed. */
  | 'leak'
  /** Something that was durable shows an older state. */
  | 'lost'
  /** Something shows what it never was. */
  | 'foreign'
  /** A rule of the scenario itself. */
  | 'broken';

export interface Violation {
  readonly kind: ViolationKind;
  readonly problem: string;
  /** Name of the crash state, for replay. */
  readonly state: string;
}

/** A change: when it was issued, when it resolved, and what it made of what it concerns. */
interface Change {
  /** Length of the log when it was issued: nothing of it stands before. */
  readonly issued: number;
  /** Number of the call in order of issue and resolution; Infinity while it runs. */
  resolved: number;
  /** Guest sectors and their new content; 512 bytes each. */
  readonly sectors: ReadonlyMap<number, Uint8Array>;
}

/** A value of which a crash leaves the old or the new one: durable when its change resolves. */
interface Value {
  readonly issued: number;
  /** Length of the log when it was durable; Infinity when that never was promised. */
  durable: number;
  readonly value: string;
}

interface Flush {
  readonly called: number;
  /** Length of the log when it resolved. */
  resolved: number;
}

/** A check of a scenario's own: what is wrong with a state, or null. `at`: its position in the log. */
export type Rule = (disk: MemoryDisk, at: number) => Promise<string | null>;

/** What an exploration found. */
export interface Exploration {
  /** Legal crash states, and those of them that differed and were judged. */
  readonly states: number;
  readonly judged: number;
  readonly violations: readonly Violation[];
}

/** Options of a lab. */
export interface LabOptions {
  /** Content of the backing file; null: there is none. */
  readonly below?: Uint8Array | null;
  /** Guest ranges that are read back in each state; all of the disk, and as much again, when absent. */
  readonly window?: Window;
}

/** Ranges of guest bytes, in whole sectors. */
type Window = readonly (readonly [from: number, to: number])[];

/** What the guest sees in a window: the ranges one after the other, and the size of the disk. */
interface View {
  readonly bytes: Uint8Array;
  readonly size: number;
}

/**
 * An image on a recording disk, and the history of what was done to it: enough to say of every crash state whether it is legal. Content
 * is followed in sectors: a crash leaves each as durable or as something that was in flight made it.
 */
export class Lab {
  readonly recording: Recording;
  readonly fill: CowSource | null;
  /** Rules beside those that hold for every image. */
  readonly rules: Rule[] = [];
  image: Qcow2;
  #storage: MortalStorage;
  /** The image was corrupt from the start: only the rules are judged. */
  damaged = false;
  /** Version 2 images with snapshots are not. */
  growable = true;
  /** Position in the log up to which leaks are nothing new. */
  leaksUntil = 0;
  /** Position in the log up to which copied flags may disagree with refcounts that are too high. */
  flagsUntil = 0;
  /** Position in the log up to which there need not be an image. */
  absentUntil = 0;
  readonly #below: Uint8Array;
  readonly #window: Window;
  /** Guest sectors of the window, in order; where each lies in a view. */
  readonly #sectors: readonly number[];
  readonly #places: ReadonlyMap<number, number>;
  readonly #initial: Uint8Array;
  readonly #changes: Change[] = [];
  readonly #flushes: Flush[] = [];
  readonly #values = new Map<string, Value[]>();
  #clock = 0;
  #pattern = 0;

  private constructor(
    recording: Recording,
    storage: MortalStorage,
    image: Qcow2,
    window: Window,
    view: View,
    facts: Record<string, string>,
    options: LabOptions,
  ) {
    this.recording = recording;
    this.#storage = storage;
    this.image = image;
    this.#below = options.below ?? new Uint8Array();
    this.fill = options.below == null ? null : belowOf(options.below);
    this.#window = window;
    this.#sectors = window.flatMap(([from, to]) =>
      Array.from({ length: (to - from) / SECTOR }, (_, index) => from / SECTOR + index),
    );
    this.#places = new Map(this.#sectors.map((sector, index) => [sector, index]));
    this.#initial = view.bytes;
    for (const [name, value] of Object.entries(facts))
      this.#values.set(name, [{ issued: 0, durable: 0, value }]);
  }

  /** Starts recording on a disk that holds an image; all of that is durable. */
  static async start(disk: MemoryDisk, options: LabOptions = {}): Promise<Lab> {
    const recording = record(disk);
    const storage = new MortalStorage(await recording.backend.open(IMAGE, 'write'));
    const image = await qcow2.open(storage, { mode: 'write' });
    const fill = options.below == null ? null : belowOf(options.below);
    const window = options.window ?? [[0, 2 * image.geometry.virtualSize]];
    const view = await readView(image, fill, window);
    return new Lab(recording, storage, image, window, view, await factsOf(image), options);
  }

  /** Starts recording on an empty disk, and creates an image there. */
  static async create(options: Qcow2CreateOptions): Promise<Lab> {
    const recording = record(new MemoryDisk());
    const storage = new MortalStorage(await recording.backend.create(IMAGE, { secret: false }));
    await recording.backend.flushDirectory('/', 'name of the image');
    const image = await qcow2.create(storage, options);
    const window: Window = [[0, options.virtualSize]];
    const view = await readView(image, null, window);
    const lab = new Lab(recording, storage, image, window, view, await factsOf(image), {});
    lab.absentUntil = lab.position;
    return lab;
  }

  /** Writes a pattern that is nowhere else. Whole sectors only. */
  async write(offset: number, length: number): Promise<void> {
    const bytes = this.#fresh(length);
    await this.#change(offset, bytes, () =>
      this.image.write(guestOffset(offset), bytes, { fill: this.fill }),
    );
  }

  /** As `write`, compressed: content that becomes smaller. Whole clusters. */
  async compress(offset: number, length: number): Promise<void> {
    const bytes = this.#fresh(length);
    for (let at = 0; at < length; at += SECTOR)
      bytes.fill(bytes[at + 3] as number, at + 8, at + SECTOR);
    await this.#change(offset, bytes, () => this.image.writeCompressed(guestOffset(offset), bytes));
  }

  /** As `write`, from another file, in pieces of three sectors. */
  async copy(offset: number, length: number): Promise<void> {
    const bytes = this.#fresh(length);
    const disk = new MemoryDisk();
    const source = await record(disk).backend.create('/source', { secret: false });
    await source.write(hostOffset(0), bytes);
    const pieces: ImageCopyPiece[] = [];
    for (let done = 0; done < length; done += 1536)
      pieces.push({
        source,
        from: hostOffset(done),
        offset: guestOffset(offset + done),
        length: byteLength(Math.min(1536, length - done)),
      });
    await this.#change(offset, bytes, () => this.image.copyFrom(pieces, { fill: this.fill }));
  }

  async zero(offset: number, length: number): Promise<void> {
    await this.#change(offset, new Uint8Array(length), () =>
      this.image.writeZeroes(range(offset, length), { fill: this.fill }),
    );
  }

  /** Deallocates whole units: what lies below shows. */
  async deallocate(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(length);
    bytes.set(this.#below.subarray(offset, offset + length));
    await this.#change(offset, bytes, () => this.image.deallocate(range(offset, length)));
  }

  async flush(): Promise<void> {
    const flush = { called: ++this.#clock, resolved: Number.POSITIVE_INFINITY };
    this.#flushes.push(flush);
    await this.image.flush();
    flush.resolved = this.position;
  }

  /** Grows the disk; it is zero where it was not. */
  async resize(size: number): Promise<void> {
    await this.change('size', String(size), () =>
      this.image.resize(byteLength(size), { fill: this.fill }),
    );
  }

  /** Cuts the disk: what lies past the new end is gone for good, also when the disk grows again. */
  async shrink(size: number): Promise<void> {
    const view = (await readAll(this.image, this.fill)).fill(0, size);
    await this.change('size', String(size), () =>
      this.replace(view, () => this.image.shrink(byteLength(size))),
    );
  }

  async setBacking(reference: BackingReference | null): Promise<void> {
    await this.change('backing', JSON.stringify(reference), () => this.image.setBacking(reference));
  }

  async setMark(mark: ImageMark | null): Promise<void> {
    await this.change('mark', JSON.stringify(mark), () => this.image.setMark(mark));
  }

  /** A change of one of the image's facts, atomic and durable when it resolves. */
  async change(name: string, value: string, work: () => Promise<unknown>): Promise<void> {
    const item = { issued: this.position, durable: Number.POSITIVE_INFINITY, value };
    (this.#values.get(name) as Value[]).push(item);
    await work();
    item.durable = this.position;
  }

  /** Closes the image, as it is, and opens it again. */
  async reopen(): Promise<void> {
    await this.image[Symbol.asyncDispose]();
    await this.takeOver();
  }

  /** Does work that the process does not survive: it dies at a barrier, before the flush. */
  async killDuring(barrier: string, work: () => Promise<void>): Promise<void> {
    this.#storage.killAt = barrier;
    if (await survives(work)) throw new Error(`there was no ${barrier}`);
  }

  /** Does work that the process may not survive: it dies after so many writes and flushes. */
  async killAfter(lives: number, work: () => Promise<void>): Promise<void> {
    this.#storage.lives = lives;
    await survives(work);
  }

  /**
   * Another process opens the image; the one before is gone, and what it left undone is now what this one sees, though a
   * power cut may still take that back.
   */
  async takeOver(): Promise<void> {
    this.#storage = new MortalStorage(await this.recording.backend.open(IMAGE, 'write'));
    this.image = await qcow2.open(this.#storage, { mode: 'write' });
    for (const change of this.#changes)
      if (change.resolved === Number.POSITIVE_INFINITY) change.resolved = ++this.#clock;
    const seen = await readView(this.image, this.fill, this.#window);
    this.#changes.push({
      issued: this.position,
      resolved: ++this.#clock,
      sectors: new Map(
        this.#sectors.map((sector, index) => [
          sector,
          seen.bytes.subarray(index * SECTOR, (index + 1) * SECTOR),
        ]),
      ),
    });
    for (const [name, value] of Object.entries(await factsOf(this.image)))
      this.#values.get(name)?.push({
        issued: this.position,
        durable: Number.POSITIVE_INFINITY,
        value,
      });
  }

  /** Stages writes of `length` bytes at each offset, and publishes them: they appear all at once, and are durable when it resolves. */
  async publish(offsets: readonly number[], length: number): Promise<void> {
    // what is staged is counted, and not referenced
    this.leaksUntil = Number.POSITIVE_INFINITY;
    const staging = await this.image.stage({
      virtualSize: this.image.geometry.virtualSize,
      from: null,
      fill: this.fill,
    });
    const sectors = new Map<number, Uint8Array>();
    for (const offset of offsets) {
      const bytes = this.#fresh(length);
      await staging.write(guestOffset(offset), bytes, { fill: this.fill });
      for (const [sector, content] of sectorsOf(offset, bytes)) sectors.set(sector, content);
    }
    await staging.flush();
    const flush = { called: 0, resolved: Number.POSITIVE_INFINITY };
    this.#flushes.push(flush);
    await this.#apply(sectors, () => staging.publish({ keepUndo: null }));
    flush.called = ++this.#clock;
    flush.resolved = this.position;
    this.leaksUntil = this.position;
  }

  /** Does work that makes the disk show `view` all at once, durably when it resolves. */
  async replace(view: Uint8Array, work: () => Promise<unknown>): Promise<void> {
    const flush = { called: 0, resolved: Number.POSITIVE_INFINITY };
    this.#flushes.push(flush);
    await this.settle(() => this.#apply(sectorsOf(0, view), async () => void (await work())));
    flush.called = ++this.#clock;
    flush.resolved = this.position;
  }

  /** Does work in which refcounts are too high for a while. */
  async settle(work: () => Promise<unknown>): Promise<void> {
    this.leaksUntil = Number.POSITIVE_INFINITY;
    this.flagsUntil = Number.POSITIVE_INFINITY;
    await work();
    this.leaksUntil = this.position;
    this.flagsUntil = this.position;
  }

  /** Changes and flushes in the log so far. */
  get position(): number {
    return this.recording.log.length;
  }

  /** Judges every crash state of what was done. Stops early at a violation of kind `until`. */
  async explore(options: CrashOptions = {}, until?: ViolationKind): Promise<Exploration> {
    const violations: Violation[] = [];
    const seen = new Set<string>();
    let [states, judged] = [0, 0];
    for (const { disk, name } of crashStates(this.recording, options)) {
      states++;
      const at = positionOf(name);
      const key = `${this.#epoch(at)} ${disk.digest()}`;
      if (seen.has(key)) continue;
      seen.add(key);
      judged++;
      for (const found of await this.#judge(disk, at)) violations.push({ ...found, state: name });
      if (violations.some(({ kind }) => kind === until)) break;
    }
    return { states, judged, violations };
  }

  #fresh(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < length; at += 8) {
      view.setUint32(at, ++this.#pattern);
      view.setUint32(at + 4, 0x5eed_0000 + (at % SECTOR));
    }
    return bytes;
  }

  async #change(offset: number, bytes: Uint8Array, work: () => Promise<void>): Promise<void> {
    if (offset % SECTOR !== 0 || bytes.length % SECTOR !== 0) throw new Error('whole sectors only');
    await this.#apply(sectorsOf(offset, bytes), work);
  }

  async #apply(sectors: ReadonlyMap<number, Uint8Array>, work: () => Promise<void>): Promise<void> {
    const change = { issued: this.position, resolved: Number.POSITIVE_INFINITY, sectors };
    this.#clock++;
    this.#changes.push(change);
    await work();
    change.resolved = ++this.#clock;
  }

  /** Moments up to `at`: states with the same bytes and the same count are judged alike. */
  #epoch(at: number): number {
    const moments = [
      ...this.#changes.map(({ issued }) => issued),
      ...this.#flushes.map(({ resolved }) => resolved),
      ...[...this.#values.values()].flat().flatMap(({ issued, durable }) => [issued, durable]),
    ];
    return moments.filter((moment) => moment <= at).length;
  }

  async #judge(disk: MemoryDisk, at: number): Promise<Omit<Violation, 'state'>[]> {
    try {
      const found = this.damaged ? [] : await this.#judgeImage(disk, at);
      for (const rule of this.rules) {
        const problem = await rule(disk, at);
        if (problem !== null) found.push({ kind: 'broken', problem });
      }
      return found;
    } catch (cause) {
      if (at < this.absentUntil) return [];
      return [{ kind: 'unreadable', problem: (cause as Error).message }];
    }
  }

  async #judgeImage(disk: MemoryDisk, at: number): Promise<Omit<Violation, 'state'>[]> {
    await using image = await openOn(disk, IMAGE, 'read');
    const found = [...this.#judgeValues(await factsOf(image), at)];
    const corruptions: string[] = [];
    const { leaks } = await image.check({
      onFinding: ({ severity, message }) => {
        const flag = at < this.flagsUntil && message.includes('copied flag');
        if (severity === 'corruption' && !flag) corruptions.push(message);
      },
    });
    if (corruptions.length > 0)
      found.push({ kind: 'corrupt', problem: `${corruptions.length}: ${corruptions[0]}` });
    if (leaks > 0 && this.#quiet(at) && at >= this.leaksUntil)
      found.push({ kind: 'leak', problem: `${leaks} leaks after a flush` });
    const seen = await readView(image, this.fill, this.#window);
    found.push(...this.#judgeView(seen, at));
    if (leaks > 0 && found.length === 0) found.push(...(await this.#judgeReclaimed(disk, seen)));
    return found;
  }

  /** Leaks can be given back, and the disk stays as it is. */
  async #judgeReclaimed(disk: MemoryDisk, seen: View): Promise<Omit<Violation, 'state'>[]> {
    await using image = await openOn(disk, IMAGE, 'write');
    await image.reclaimLeaks();
    const { corruptions, leaks } = await image.check();
    if (corruptions + leaks > 0)
      return [
        { kind: 'leak', problem: `${corruptions + leaks} errors after leaks were reclaimed` },
      ];
    const left = await readView(image, this.fill, this.#window);
    if (Buffer.compare(left.bytes, seen.bytes) === 0) return [];
    return [{ kind: 'broken', problem: 'the disk changed while leaks were reclaimed' }];
  }

  *#judgeValues(facts: Record<string, string>, at: number): Generator<Omit<Violation, 'state'>> {
    for (const [name, seen] of Object.entries(facts)) {
      const values = this.#values.get(name) as Value[];
      const first = values.findLastIndex(({ durable }) => durable <= at);
      const index = values.findIndex(
        ({ value, issued }, index) => index >= first && issued <= at && value === seen,
      );
      if (index >= 0) continue;
      const was = values.slice(0, first).some(({ value }) => value === seen);
      yield { kind: was ? 'lost' : 'foreign', problem: `${name} is ${seen}` };
    }
  }

  /** Whether everything issued so far was flushed. */
  #quiet(at: number): boolean {
    const flush = this.#lastFlush(at);
    const pending = ({ issued, resolved }: Change): boolean => issued <= at && resolved > flush;
    const half = [...this.#values.values()]
      .flat()
      .some(({ issued, durable }) => issued <= at && durable > at);
    return !this.#changes.some(pending) && !half;
  }

  /** When the last flush that is over was called. */
  #lastFlush(at: number): number {
    return Math.max(
      0,
      ...this.#flushes.filter(({ resolved }) => resolved <= at).map(({ called }) => called),
    );
  }

  *#judgeView(seen: View, at: number): Generator<Omit<Violation, 'state'>> {
    const flush = this.#lastFlush(at);
    const durable = this.#initial.slice();
    const older = this.#changes.filter(({ resolved }) => resolved < flush);
    for (const { sectors } of older)
      for (const [sector, bytes] of sectors) {
        const place = this.#places.get(sector);
        if (place !== undefined) durable.set(bytes, place * SECTOR);
      }
    if (Buffer.compare(seen.bytes, durable) === 0) return;
    const inFlight = this.#changes.filter(
      ({ issued, resolved }) => issued <= at && resolved >= flush,
    );
    for (const [place, sector] of this.#sectors.entries()) {
      if (sector * SECTOR >= seen.size) continue;
      const part = (bytes: Uint8Array): Uint8Array =>
        bytes.subarray(place * SECTOR, (place + 1) * SECTOR);
      const is = (bytes: Uint8Array | undefined): boolean =>
        bytes !== undefined && Buffer.compare(part(seen.bytes), bytes) === 0;
      const made = ({ sectors }: Change): boolean => is(sectors.get(sector));
      if (is(part(durable)) || inFlight.some(made)) continue;
      const was = is(part(this.#initial)) || older.some(made);
      yield {
        kind: was ? 'lost' : 'foreign',
        problem: `guest sector ${sector} is ${was ? 'as it was before' : 'what it never was'}`,
      };
    }
  }
}

async function survives(work: () => Promise<void>): Promise<boolean> {
  return work().then(
    () => true,
    () => false,
  );
}

function sectorsOf(offset: number, bytes: Uint8Array): ReadonlyMap<number, Uint8Array> {
  const sectors = new Map<number, Uint8Array>();
  for (let at = 0; at < bytes.length; at += SECTOR)
    sectors.set((offset + at) / SECTOR, bytes.subarray(at, at + SECTOR));
  return sectors;
}

/** Position in the log that the name of a crash state begins with. */
function positionOf(name: string): number {
  const found = /@(\d+)/.exec(name);
  if (found === null) throw new Error(`crash state without a position: ${name}`);
  return Number(found[1]);
}

async function factsOf(image: Qcow2): Promise<Record<string, string>> {
  return {
    compat: String((await image.describe()).specific['compat']),
    bitmaps: (await image.bitmaps.list()).map(({ name }) => name).join(),
    size: String(image.geometry.virtualSize),
    backing: JSON.stringify(image.backing),
    mark: JSON.stringify(image.mark),
  };
}

async function readView(image: Image, fill: CowSource | null, window: Window): Promise<View> {
  const size = image.geometry.virtualSize;
  const bytes = new Uint8Array(window.reduce((sum, [from, to]) => sum + to - from, 0));
  let done = 0;
  for (const [from, to] of window) {
    const length = Math.max(0, Math.min(to, size) - from);
    if (length > 0) await image.read(guestOffset(from), bytes.subarray(done, done + length), fill);
    done += to - from;
  }
  return { bytes, size };
}
