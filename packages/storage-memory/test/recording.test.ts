import { openBackend } from '@downfold/storage';
import { faulty } from '@downfold/storage/faults';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { crashStates, MemoryDisk, memoryBackend, record } from '../src/index.ts';

const at = hostOffset;
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('a recording', () => {
  test('holds every change and every flush, in one order over all files', async () => {
    const { backend, log, disk } = record(new MemoryDisk());
    await using a = await backend.create('/a', { secret: false });
    await using b = await backend.create('/b', { secret: true });
    await a.write(at(3), bytes(1, 2), { what: 'l2' });
    await b.copyFrom([{ source: a, from: at(4), to: at(0), length: byteLength(2) }], {
      what: 'data',
    });
    await a.writeZeroes({ offset: at(0), length: byteLength(4) }, { what: 'l1' });
    await a.discard({ offset: at(4), length: byteLength(1) });
    await b.setLength(byteLength(1));
    await a.flush('W1');
    await backend.rename('/a', '/c');
    await backend.flushDirectory('/', 'names');
    await backend.remove('/b');
    const [inodeA, inodeB] = [disk.inodeOf('/c'), Number(b.identity.inode)];
    expect(log).toEqual([
      { kind: 'name', do: 'create', path: '/a', inode: inodeA },
      { kind: 'name', do: 'create', path: '/b', inode: inodeB },
      { kind: 'file', do: 'write', inode: inodeA, what: 'l2', offset: 3, bytes: bytes(1, 2) },
      { kind: 'file', do: 'write', inode: inodeB, what: 'data', offset: 0, bytes: bytes(2, 0) },
      { kind: 'file', do: 'zero', inode: inodeA, what: 'l1', offset: 0, length: 4 },
      { kind: 'file', do: 'discard', inode: inodeA, what: 'discard', offset: 4, length: 1 },
      { kind: 'file', do: 'length', inode: inodeB, what: 'length', length: 1 },
      { kind: 'flush', inode: inodeA, barrier: 'W1', covers: 7 },
      { kind: 'name', do: 'rename', from: '/a', path: '/c', inode: inodeA },
      { kind: 'flush directory', directory: '/', barrier: 'names', covers: 9 },
      { kind: 'name', do: 'remove', path: '/b', inode: inodeB },
    ]);
  });

  test('keeps the bytes as they were written, whatever the caller does with the buffer', async () => {
    const { backend, log } = record(new MemoryDisk());
    await using file = await backend.create('/a', { secret: false });
    const source = bytes(1, 2, 3);
    await file.write(at(0), source);
    source.fill(9);
    expect(log[1]).toMatchObject({ bytes: bytes(1, 2, 3) });
  });

  test('says of a flush what it covers: not what was written after it was called', async () => {
    const { backend, log } = record(new MemoryDisk());
    await using file = await backend.create('/a', { secret: false });
    const flush = file.flush('W1');
    const write = file.write(at(0), bytes(1));
    await Promise.all([flush, write]);
    expect(log.map(({ kind }) => kind)).toEqual(['name', 'file', 'flush']);
    expect(log[2]).toMatchObject({ barrier: 'W1', covers: 1 });
  });

  test('goes on with an earlier one: what was pending there is lost only by a power cut that comes before a flush', async () => {
    const first = record(new MemoryDisk());
    {
      await using file = await first.backend.create('/a', { secret: false });
      await file.write(at(0), bytes(1, 2), { what: 'data' });
    }
    const from = first.log.length;
    const second = record(first.initial, first.log);
    expect(second.disk.digest()).toBe(first.disk.digest());
    {
      await using file = await second.backend.open('/a', 'write');
      await file.write(at(2), bytes(3), { what: 'data' });
      await file.flush('W1');
    }
    const states = [...crashStates(second, { from })];
    const [killed] = states;
    expect(killed).toMatchObject({ name: `kill@${from}`, at: from });
    expect(states.every((state) => state.at >= from)).toBe(true);
    const nothing = second.initial.digest();
    const lost = states.filter(({ disk }) => disk.digest() === nothing);
    // the flush of the file does not make its name durable
    expect(lost.map((state) => state.name.startsWith('power@'))).toEqual(lost.map(() => true));
    expect(lost.length).toBeGreaterThan(0);
    expect(first.log).toHaveLength(from);
  });

  test('has no entry for what was refused or failed', async () => {
    const recording = record(new MemoryDisk());
    const driver = faulty(recording.driver, [{ operation: 'flush' }, { operation: 'write' }]);
    const backend = openBackend(driver);
    await using file = await backend.create('/a', { secret: false });
    const before = recording.log.length;
    await expect(file.write(at(0), bytes(1))).rejects.toThrow();
    await expect(file.flush('W1')).rejects.toThrow();
    await expect(backend.create('/a', { secret: false })).rejects.toThrow();
    await expect(backend.rename('/a', '/missing/a')).rejects.toThrow();
    await expect(backend.remove('/missing')).rejects.toThrow();
    await expect(backend.flushDirectory('/missing', 'names')).rejects.toThrow();
    await backend.rename('/a', '/a');
    expect(recording.log.length).toBe(before);
  });

  test('leaves the disk that it began with alone', async () => {
    const disk = new MemoryDisk();
    await (await memoryBackend(disk).create('/a', { secret: false }))[Symbol.asyncDispose]();
    const before = disk.digest();
    const recording = record(disk);
    await using file = await recording.backend.open('/a', 'write');
    await file.write(at(0), bytes(1));
    await recording.backend.remove('/a');
    expect(disk.digest()).toBe(before);
    expect(recording.initial.digest()).toBe(before);
    expect(recording.disk.digest()).not.toBe(before);
  });
});

describe('a disk', () => {
  test('is another device than every other, and the same as its copies', () => {
    const [one, two] = [new MemoryDisk(), new MemoryDisk()];
    expect(one.identityOf(2)).not.toEqual(two.identityOf(2));
    expect(one.copy().copy().identityOf(2)).toEqual(one.identityOf(2));
  });

  test('copies between two disks are copies between two files, whatever their inodes', async () => {
    const [one, two] = [memoryBackend(), memoryBackend()];
    await using source = await one.create('/a', { secret: false });
    await using target = await two.create('/a', { secret: false });
    expect(source.identity.inode).toBe(target.identity.inode);
    await source.write(at(0), bytes(1, 2, 3));
    await target.copyFrom([{ source, from: at(0), to: at(1), length: byteLength(3) }]);
    expect(await target.length()).toBe(4);
  });

  test('has directories where they were made', async () => {
    const disk = new MemoryDisk();
    disk.makeDirectory('/a/b');
    const backend = memoryBackend(disk);
    await (await backend.create('/a/file', { secret: false }))[Symbol.asyncDispose]();
    expect(await backend.list('/a')).toEqual([
      { name: 'file', kind: 'file' },
      { name: 'b', kind: 'directory' },
    ]);
    expect(await backend.list('/')).toEqual([{ name: 'a', kind: 'directory' }]);
    await expect(backend.rename('/a/file', '/a/b')).rejects.toMatchObject({
      code: 'STORAGE_NOT_REGULAR',
    });
  });
});
