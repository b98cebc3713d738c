import { mkdtempSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChainLayer, LayerFacts } from '@downfold/chain';
import { Random } from '@downfold/compliance';
import { Device, type DirectReads } from '@downfold/device';
import { type Qcow2, qcow2 } from '@downfold/qcow2';
import type { OpenMode } from '@downfold/storage';
import { fileBackend } from '@downfold/storage-file';
import { byteLength, type GuestRange, guestOffset, SharedMapReader } from '@downfold/units';
import { describe, expect, it, onTestFinished } from 'vitest';

const CLUSTER = 65_536;
const SIZE = 64 * CLUSTER;
/** Of a cluster that is larger than what one entry of the map stands for. */
const LARGE = 2 << 20;

const range = (offset: number, length: number): GuestRange => ({
  offset: guestOffset(offset),
  length: byteLength(length),
});

interface Layer extends ChainLayer {
  readonly image: Qcow2;
}

/** Images in a directory of their own. */
class Folder {
  readonly #path = mkdtempSync(join(tmpdir(), 'downfold-direct-'));
  readonly #backend = fileBackend();

  constructor() {
    onTestFinished(() => rmSync(this.#path, { recursive: true }));
  }

  async make(name: string, random: Random | null = null, clusterSize = CLUSTER): Promise<void> {
    const storage = await this.#backend.create(join(this.#path, name), { secret: false });
    await using image = await qcow2.create(storage, { virtualSize: byteLength(SIZE), clusterSize });
    for (let at = 0; random !== null && at < SIZE; at += 2 * CLUSTER)
      await image.write(guestOffset(at), random.bytes(CLUSTER), { fill: null });
    await image.flush();
  }

  async open(name: string, mode: OpenMode): Promise<Layer> {
    const path = join(this.#path, name);
    const image = await qcow2.open(await this.#backend.open(path, mode), { mode });
    onTestFinished(() => image[Symbol.asyncDispose]());
    return { facts: { node: name, path } as LayerFacts, image };
  }

  /** A chain of new images of which only the last one is open for writing, and a disk on it. */
  async chain(...names: readonly string[]): Promise<{ device: Device; layers: Layer[] }> {
    const layers: Layer[] = [];
    for (const name of names) {
      await this.make(name);
      layers.push(await this.open(name, name === names.at(-1) ? 'write' : 'read'));
    }
    return { device: new Device({ layers }), layers };
  }
}

/** A reader, as a thread is one; here it is asked step by step. */
class Reader {
  readonly at: SharedMapReader;
  readonly direct: DirectReads;

  constructor(direct: DirectReads) {
    this.direct = direct;
    this.at = new SharedMapReader(direct.map.buffer, direct.map.addReader() as number);
  }

  /** Bytes that the map leads to; null: it does not know all of them. */
  read(offset: number, length: number): Buffer | null {
    this.at.enter();
    try {
      return this.readInside(offset, length);
    } finally {
      this.at.leave();
    }
  }

  readInside(offset: number, length: number): Buffer | null {
    const bytes = Buffer.alloc(length);
    for (let done = 0; done < length; done += this.at.length) {
      if (!this.at.find(offset + done, offset + length)) return null;
      const { descriptor, host, length: run } = this.at;
      if (descriptor !== null) readSync(descriptor, bytes, done, run, host);
    }
    return bytes;
  }

  /** Asks for bytes to be learnt, and waits until they are, or for as long as that should have taken. */
  async learn(offset: number, length = 1): Promise<void> {
    this.direct.learn(offset, length);
    for (let turn = 0; turn < 200 && this.read(offset, length) === null; turn++) await sleep(2);
  }
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function shown(device: Device, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await device.read(guestOffset(offset), bytes);
  return bytes;
}

const fill = (value: number, length = CLUSTER): Uint8Array => new Uint8Array(length).fill(value);

describe('what the map of a disk tells', () => {
  it('leads to what the disk shows, in all layers, whatever was changed before and since', async () => {
    const [folder, random] = [new Folder(), new Random(5)];
    await folder.make('base', random);
    await folder.make('top');
    const layers = [await folder.open('base', 'read'), await folder.open('top', 'write')];
    await using device = new Device({ layers });
    const reader = new Reader(await device.direct());
    let told = 0;
    for (let round = 0; round < 60; round++) {
      const offset = random.next(SIZE - CLUSTER);
      const kind = random.next(4);
      const length = 1 + random.next(CLUSTER);
      if (kind < 2) await device.write(guestOffset(offset), random.bytes(length));
      else if (kind === 2) await device.writeZeroes(range(offset, length));
      else await device.discard(range(offset, length));
      if (round % 7 === 0) await device.flush();
      for (let look = 0; look < 8; look++) {
        const [from, some] = [random.next(SIZE - CLUSTER), 1 + random.next(CLUSTER)];
        const found = reader.read(from, some);
        if (found === null) await reader.learn(from, some);
        else {
          told += 1;
          expect(found.equals(await shown(device, from, some)), `${from}+${some}`).toBe(true);
        }
      }
    }
    expect(told).toBeGreaterThan(200);
  });

  it('is what it was when only a part of a cluster is written that a snapshot keeps: the rest moves too', async () => {
    const folder = new Folder();
    await folder.make('disk', null, LARGE);
    const layers = [await folder.open('disk', 'write')];
    await using device = new Device({ layers });
    await device.write(guestOffset(0), fill(1, LARGE));
    const reader = new Reader(await device.direct());
    await device.drained(async () => {
      await layers[0]?.image.snapshots.create({ name: 'kept', date: new Date(0).toISOString() });
    });
    await reader.learn(0);
    const last = LARGE - 100;
    expect(reader.read(last, 100)).toEqual(Buffer.alloc(100, 1));
    await device.write(guestOffset(4096), fill(2, 4096));
    // nothing of the cluster is where it was
    expect(reader.read(last, 100)).toBe(null);
    await reader.learn(last);
    expect(reader.read(last, 100)).toEqual(Buffer.alloc(100, 1));
  });

  it('goes on with a layer below the active one that a job writes: what it gives away is forgotten first', async () => {
    const folder = new Folder();
    await folder.make('base', null, LARGE);
    await folder.make('top');
    const [base, top] = [await folder.open('base', 'write'), await folder.open('top', 'write')];
    const { image } = base;
    await image.write(guestOffset(0), fill(1, LARGE), { fill: null });
    await image.snapshots.create({ name: 'kept', date: new Date(0).toISOString() });
    await using device = new Device({ layers: [base, top] });
    // what the job is going to commit
    await device.write(guestOffset(CLUSTER), fill(2));
    await device.write(guestOffset(LARGE), fill(9, LARGE));
    const reader = new Reader(await device.direct());
    await reader.learn(0);
    expect(reader.read(0, 100)).toEqual(Buffer.alloc(100, 1));
    expect(reader.read(CLUSTER, 100)).toEqual(Buffer.alloc(100, 2));

    // the whole cluster moves, and its old place becomes free
    await image.write(guestOffset(CLUSTER), fill(2), { fill: null });
    const [kept] = await image.snapshots.list();
    await image.snapshots.delete(kept?.id ?? '');
    await image.flush();
    await image.write(guestOffset(LARGE), fill(9, LARGE), { fill: null });
    expect([null, 1]).toContain(reader.read(0, 100)?.[0] ?? null);
    await reader.learn(0);
    expect(reader.read(0, 100)).toEqual(Buffer.alloc(100, 1));
  });
});

describe('before anything is changed', () => {
  const ways = [
    ['write', (device: Device) => device.write(guestOffset(0), fill(2))],
    ['zeros', (device: Device) => device.writeZeroes(range(0, CLUSTER))],
    ['discard', (device: Device) => device.discard(range(0, CLUSTER))],
    ['section', (device: Device) => device.drained(async () => undefined)],
    ['closing', (device: Device) => device.close()],
    [
      "a job's deallocation",
      (device: Device) => device.holding(range(0, CLUSTER), 'requests', async () => undefined),
    ],
    [
      "a job's write",
      (device: Device) => device.holding(range(0, CLUSTER), 'changes', async () => undefined),
    ],
  ] as const;

  it.each(ways)('%s: it is forgotten, and who looks at it is waited for', async (_what, change) => {
    const { device } = await new Folder().chain('disk');
    await device.write(guestOffset(0), fill(1));
    const reader = new Reader(await device.direct());
    await reader.learn(0);
    reader.at.enter();
    expect(reader.readInside(0, CLUSTER)).toEqual(Buffer.alloc(CLUSTER, 1));
    let isOver = false;
    const changing = Promise.resolve(change(device)).then(() => {
      isOver = true;
    });
    await settled();
    expect(isOver).toBe(false);
    expect(new Reader(reader.direct).read(0, 1)).toBe(null);
    reader.at.leave();
    await changing;
    await device.close();
  });

  it('what was looked up before a change, and is told after it, is not put into the map', async () => {
    const { device, layers } = await new Folder().chain('disk');
    await using _ = device;
    await device.write(guestOffset(0), fill(1, 3 * CLUSTER));
    const reader = new Reader(await device.direct());
    const image = layers[0]?.image as Qcow2;
    const { promise, resolve } = Promise.withResolvers<void>();
    const extents = image.extents.bind(image);
    image.extents = async function* slow(...of) {
      for await (const batch of extents(...of)) {
        await promise;
        yield batch;
      }
    };
    const learning = reader.learn(0);
    await settled();
    await device.discard(range(CLUSTER, CLUSTER));
    await device.flush();
    resolve();
    await learning;
    await settled();
    expect(reader.read(0, 100)).toEqual(Buffer.alloc(100, 1));
    expect(reader.read(CLUSTER, 100)).toBe(null);
    expect(reader.read(2 * CLUSTER, 100)).toEqual(Buffer.alloc(100, 1));
    await reader.learn(CLUSTER);
    expect(reader.read(CLUSTER, 100)).toEqual(Buffer.alloc(100, 0));
  });

  it('a layer that outlives the disk waits for none of its readers', async () => {
    const folder = new Folder();
    for (const name of ['base', 'top']) await folder.make(name);
    const [base, top] = [await folder.open('base', 'write'), await folder.open('top', 'write')];
    const { image } = base;
    const listen = image.beforeReuse?.bind(image);
    let listening = 0;
    image.beforeReuse = (gone) => {
      const inner = listen?.(gone);
      listening += 1;
      return {
        [Symbol.dispose]: () => {
          inner?.[Symbol.dispose]();
          listening -= 1;
        },
      };
    };
    const device = new Device({ layers: [base, top] });
    await device.direct();
    expect(listening).toBe(1);
    await device.close();
    expect(listening).toBe(0);
  });

  it('a closed disk learns nothing', async () => {
    const { device } = await new Folder().chain('disk');
    await device.write(guestOffset(0), fill(1));
    const reader = new Reader(await device.direct());
    await device.close();
    await reader.learn(0);
    expect(reader.read(0, 1)).toBe(null);
  });
});
