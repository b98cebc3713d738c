import { caseContext } from '@downfold/compliance';
import type { Storage } from '@downfold/storage';
import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import {
  type CrashOptions,
  type CrashState,
  crashStates,
  durableDisk,
  MemoryDisk,
  memoryBackend,
  type Recording,
  record,
} from '../src/index.ts';

const SECTOR = 512;

/** `text` as so many sectors, each full of one letter; a dot is a sector of zeros. */
function sectors(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length * SECTOR);
  for (const [index, letter] of [...text].entries())
    bytes.fill(letter === '.' ? 0 : letter.charCodeAt(0), index * SECTOR, (index + 1) * SECTOR);
  return bytes;
}

/** The files of a disk as `name=text`, each sector a letter, and `?` where a sector holds a mixture. */
function look(disk: MemoryDisk): string {
  const files = [...disk.names].sort().map(([path, inode]) => {
    const file = disk.fileOf(inode);
    const bytes = new Uint8Array(file.length);
    file.read(0, bytes);
    let text = '';
    for (let start = 0; start < bytes.length; start += SECTOR) {
      const sector = bytes.subarray(start, start + SECTOR);
      const first = sector[0] as number;
      const whole = sector.every((byte) => byte === first);
      text += whole ? (first === 0 ? '.' : String.fromCharCode(first)) : '?';
    }
    return `${path.slice(1)}=${text}`;
  });
  return files.join(' ');
}

/** A recording that starts with these files, all durable. */
function recordingOf(files: Readonly<Record<string, string>>): Recording {
  const disk = new MemoryDisk();
  for (const [name, text] of Object.entries(files))
    disk.fileOf(disk.create(`/${name}`)).write(0, sectors(text));
  return record(disk);
}

function write(file: Storage, sector: number, text: string): Promise<void> {
  return file.write(hostOffset(sector * SECTOR), sectors(text));
}

/** Everything that a crash may leave, each once, from log entry `from` on. */
function outcomes(recording: Recording, options: CrashOptions = {}, from = 0): string[] {
  const states = [...crashStates(recording, options)].filter(({ at }) => at >= from);
  return [...new Set(states.map(({ disk }) => look(disk)))].sort();
}

describe('a power cut keeps any subset of what was not flushed', () => {
  test('of two writes', async () => {
    const recording = recordingOf({ a: '..' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    await write(a, 1, 'y');
    expect(outcomes(recording)).toEqual(['a=..', 'a=.y', 'a=x.', 'a=xy']);
  });

  test('of writes to two files', async () => {
    const recording = recordingOf({ a: '.', b: '.' });
    await using a = await recording.backend.open('/a', 'write');
    await using b = await recording.backend.open('/b', 'write');
    await write(a, 0, 'x');
    await write(b, 0, 'y');
    expect(outcomes(recording)).toEqual(['a=. b=.', 'a=. b=y', 'a=x b=.', 'a=x b=y']);
  });

  test('in their order where they overlap', async () => {
    const recording = recordingOf({ a: '...' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'xx');
    await write(a, 1, 'yy');
    expect(outcomes(recording)).toEqual(['a=...', 'a=.yy', 'a=xx.', 'a=xyy']);
  });

  test('of zeros, discards and lengths', async () => {
    const recording = recordingOf({ a: 'xxxx' });
    await using a = await recording.backend.open('/a', 'write');
    await a.writeZeroes({ offset: hostOffset(0), length: byteLength(SECTOR) });
    await a.discard({ offset: hostOffset(SECTOR), length: byteLength(SECTOR) });
    await a.setLength(byteLength(3 * SECTOR));
    expect(outcomes(recording)).toEqual(
      ['..x', '..xx', '.xx', '.xxx', 'x.x', 'x.xx', 'xxx', 'xxxx']
        .map((text) => `a=${text}`)
        .sort(),
    );
  });

  test('of writes past the end: a hole shows where the nearer one is lost', async () => {
    const recording = recordingOf({ a: '' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    await write(a, 1, 'y');
    expect(outcomes(recording)).toEqual(['a=', 'a=.y', 'a=x', 'a=xy']);
  });
});

describe('a killed process leaves every change that it made', () => {
  test('so that writes arrive in their order', async () => {
    const recording = recordingOf({ a: '..' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    await write(a, 1, 'y');
    const kills = [...crashStates(recording)].filter(({ name }) => name.startsWith('kill'));
    expect(kills.map(({ name, disk }) => `${name} ${look(disk)}`)).toEqual([
      'kill@0 a=x.',
      'kill@1 a=xy',
    ]);
  });
});

describe('a flush', () => {
  test('makes what was written before it durable, and nothing after it', async () => {
    const recording = recordingOf({ a: '..' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    await a.flush('W1');
    const flushed = recording.log.length;
    await write(a, 1, 'y');
    expect(outcomes(recording)).toEqual(['a=..', 'a=x.', 'a=xy']);
    expect(outcomes(recording, {}, flushed)).toEqual(['a=x.', 'a=xy']);
    expect(look(durableDisk(recording))).toBe('a=x.');
  });

  test('does not cover what was written after it was called, although before it was over', async () => {
    const recording = recordingOf({ a: '..' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    const flush = a.flush('W1');
    await write(a, 1, 'y');
    await flush;
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['a=x.', 'a=xy']);
    expect(outcomes(recording)).toEqual(['a=..', 'a=.y', 'a=x.', 'a=xy']);
  });

  test('of one file says nothing of another', async () => {
    const recording = recordingOf({ a: '.', b: '.' });
    await using a = await recording.backend.open('/a', 'write');
    await using b = await recording.backend.open('/b', 'write');
    await write(a, 0, 'x');
    await write(b, 0, 'y');
    await b.flush('W1');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['a=. b=y', 'a=x b=y']);
  });

  test('that is ignored by its name never was', async () => {
    const recording = recordingOf({ a: '...' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x');
    await a.flush('W1');
    await write(a, 1, 'y');
    await a.flush('W2');
    await write(a, 2, 'z');
    const end = recording.log.length;
    expect(outcomes(recording, {}, end)).toEqual(['a=xy.', 'a=xyz']);
    const without = (name: string): string[] =>
      outcomes(recording, { ignoreFlush: (barrier) => barrier === name }, end);
    expect(without('W1')).toEqual(['a=xy.', 'a=xyz']);
    expect(without('W2')).toEqual(['a=x..', 'a=x.z', 'a=xy.', 'a=xyz']);
    expect(outcomes(recording, { ignoreFlush: () => true }, end)).toHaveLength(8);
    // without W1, y may be durable before x is
    expect(outcomes(recording, { ignoreFlush: (barrier) => barrier === 'W1' })).toContain('a=.y.');
    expect(outcomes(recording)).not.toContain('a=.y.');
  });
});

describe('names', () => {
  test('of new files are durable by a flush of their directory, not of the file', async () => {
    const recording = recordingOf({});
    await using a = await recording.backend.create('/a', { secret: false });
    await write(a, 0, 'x');
    await a.flush('W1');
    const flushed = recording.log.length;
    expect(outcomes(recording, {}, flushed)).toEqual(['', 'a=x']);
    await recording.backend.flushDirectory('/', 'names');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['a=x']);
    expect(outcomes(recording)).toEqual(['', 'a=', 'a=x']);
  });

  test('are durable without the bytes', async () => {
    const recording = recordingOf({});
    await using a = await recording.backend.create('/a', { secret: false });
    await write(a, 0, 'x');
    await recording.backend.flushDirectory('/', 'names');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['a=', 'a=x']);
  });

  test('of another directory are not covered', async () => {
    const disk = new MemoryDisk();
    disk.makeDirectory('/other');
    const recording = record(disk);
    await using _a = await recording.backend.create('/a', { secret: false });
    await recording.backend.flushDirectory('/other', 'names');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['', 'a=']);
  });

  test('that changed after the flush of the directory was called are not covered', async () => {
    const recording = recordingOf({ a: 'x' });
    const flush = recording.backend.flushDirectory('/', 'names');
    await recording.backend.remove('/a');
    await flush;
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['', 'a=x']);
  });

  test('that were removed may come back until the directory is flushed', async () => {
    const recording = recordingOf({ a: 'x' });
    await recording.backend.remove('/a');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['', 'a=x']);
    await recording.backend.flushDirectory('/', 'names');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['']);
  });

  test('change by a rename at once: both or neither, and what is replaced is never missing', async () => {
    const recording = recordingOf({ new: 'y', old: 'x' });
    await recording.backend.rename('/new', '/old');
    expect(outcomes(recording)).toEqual(['new=y old=x', 'old=y']);
    await recording.backend.flushDirectory('/', 'names');
    expect(outcomes(recording, {}, recording.log.length)).toEqual(['old=y']);
  });

  test('of a file written, renamed over another and flushed in the right order: old or new, whole', async () => {
    const recording = recordingOf({ image: 'x' });
    {
      await using file = await recording.backend.create('/new', { secret: false });
      await write(file, 0, 'y');
      await file.flush('bytes');
    }
    await recording.backend.rename('/new', '/image');
    await recording.backend.flushDirectory('/', 'names');
    const images = outcomes(recording).map((text) => /image=\S*/.exec(text)?.[0]);
    expect([...new Set(images)]).toEqual(['image=x', 'image=y']);
    // without the first flush the name may lead to a file that is still empty
    const careless = outcomes(recording, { ignoreFlush: (barrier) => barrier === 'bytes' });
    expect(careless).toContain('image=');
  });
});

describe('torn writes', () => {
  test('keep any of their sectors', async () => {
    const recording = recordingOf({ a: '..' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'xy');
    expect(outcomes(recording)).toEqual(['a=..', 'a=xy']);
    expect(outcomes(recording, { tear: true })).toEqual(['a=..', 'a=.y', 'a=x.', 'a=xy']);
  });

  test('tear where sectors end, not where the write began', async () => {
    const recording = recordingOf({ a: '...' });
    await using a = await recording.backend.open('/a', 'write');
    await a.write(hostOffset(SECTOR / 2), sectors('xx'));
    expect(outcomes(recording, { tear: true })).toEqual(
      ['...', '..?', '.x.', '.x?', '?..', '?.?', '?x.', '?x?'].map((text) => `a=${text}`).sort(),
    );
  });

  test('never tear a sector: one write of 512 aligned bytes is old or new', async () => {
    const recording = recordingOf({ a: 'o' });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'n');
    expect(outcomes(recording, { tear: true })).toEqual(['a=n', 'a=o']);
  });

  test('tear zeros too, terabytes of them in a few pieces', async () => {
    const recording = recordingOf({ a: 'xyz' });
    await using a = await recording.backend.open('/a', 'write');
    await a.writeZeroes({ offset: hostOffset(0), length: byteLength(2 * SECTOR) });
    expect(outcomes(recording, { tear: true })).toEqual(['a=..z', 'a=.yz', 'a=x.z', 'a=xyz']);
    await a.writeZeroes({ offset: hostOffset(0), length: byteLength(2 ** 40) });
    const lengths = new Set(
      [...crashStates(recording, { tear: true })].map(({ disk }) => disk.facts('/a').length),
    );
    expect(lengths.size).toBeGreaterThan(2);
  });

  test('include a write that the process was killed in', async () => {
    const recording = recordingOf({ a: '.'.repeat(24) });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'x'.repeat(24));
    const found = outcomes(recording, { tear: true });
    expect(found.filter((text) => /^a=x+\.+$/.test(text)).length).toBeGreaterThan(0);
  });
});

describe('the states', () => {
  /** Every state, recomputed from the start: slow, and short enough to be seen right. */
  function* plainly(recording: Recording): Generator<{ at: number; digest: string }> {
    const { log } = recording;
    const isDurable = (index: number, at: number): boolean => {
      const change = log[index];
      return log.slice(0, at).some((flush) => {
        if (flush.kind === 'flush')
          return index < flush.covers && change?.kind === 'file' && change.inode === flush.inode;
        return flush.kind === 'flush directory' && index < flush.covers && change?.kind === 'name';
      });
    };
    for (let at = 0; at <= log.length; at++) {
      const entry = log[at];
      if (entry?.kind === 'file' || entry?.kind === 'name') continue;
      const changes = [...log.entries()].filter(
        ([index, { kind }]) => index < at && (kind === 'file' || kind === 'name'),
      );
      const free = changes.filter(([index]) => !isDurable(index, at)).map(([index]) => index);
      for (let bits = 0; bits < 2 ** free.length; bits++) {
        const lost = new Set(free.filter((_, place) => ((bits >> place) & 1) === 0));
        const disk = recording.initial.copy();
        // what is durable comes first: what is pending was done after a flush, or overlaps with nothing that is
        for (const part of ['durable', 'kept'])
          for (const [index, change] of changes)
            if (!lost.has(index) && free.includes(index) === (part === 'kept')) redo(disk, change);
        yield { at, digest: disk.digest() };
      }
    }
  }

  function redo(disk: MemoryDisk, change: Recording['log'][number]): void {
    if (change.kind === 'file') {
      const file = disk.fileOf(change.inode);
      if (change.do === 'write') file.write(change.offset, change.bytes);
      else if (change.do === 'length') file.setLength(change.length);
      else file.zero(change.offset, change.length);
    } else if (change.kind === 'name') {
      if (change.do === 'rename') disk.names.delete(change.from);
      if (change.do === 'remove') disk.names.delete(change.path);
      else disk.names.set(change.path, change.inode);
      disk.fileOf(change.inode);
    }
  }

  /** Random writes, zeros, lengths, names and flushes; at most `most` changes are pending at any time. */
  async function randomRecording(seed: number, most: number): Promise<Recording> {
    const { integer, bytes } = caseContext(seed);
    const recording = recordingOf({ a: 'aaaa', b: 'bbbb' });
    const { backend } = recording;
    await using a = await backend.open('/a', 'write');
    await using b = await backend.open('/b', 'write');
    const files = [a, b];
    let pending = 0;
    for (let step = 0; step < 30; step++) {
      const file = files[integer(2)] as Storage;
      const offset = hostOffset(integer(8) * SECTOR);
      const kind = pending >= most ? 7 : integer(8);
      pending += kind < 6 ? 1 : 0;
      if (kind < 3) await file.write(offset, bytes(SECTOR * (1 + integer(3))));
      else if (kind === 3) await file.writeZeroes({ offset, length: byteLength(SECTOR * 2) });
      else if (kind === 4) await file.setLength(byteLength(offset));
      else if (kind === 5)
        await (await backend.create(`/new-${step}`, { secret: false }))[Symbol.asyncDispose]();
      else if (kind === 6) await file.flush(`flush ${step}`);
      else {
        await Promise.all([a.flush(`a ${step}`), b.flush(`b ${step}`)]);
        await backend.flushDirectory('/', `names ${step}`);
        pending = 0;
      }
    }
    return recording;
  }

  const seeds = Array.from({ length: 20 }, (_, index) => index + 1);

  test.each(seeds)('are those that a plain enumeration finds (seed %i)', async (seed) => {
    const recording = await randomRecording(seed, 6);
    const sorted = (states: Iterable<{ at: number; digest: string }>): string[] =>
      [...new Set([...states].map(({ at, digest }) => `${at} ${digest}`))].sort();
    const power = [...crashStates(recording, { exhaustive: 12 })]
      .filter(({ name }) => name.startsWith('power'))
      .map(({ at, disk }) => ({ at, digest: disk.digest() }));
    expect(sorted(power)).toEqual(sorted(plainly(recording)));
  });

  test.each(seeds)('that are sampled are legal ones, with none and all (seed %i)', async (seed) => {
    // three changes have 12 pieces at most: all their subsets can be tried
    const recording = await randomRecording(seed, 3);
    const key = ({ at, disk }: CrashState): string => `${at} ${disk.digest()}`;
    for (const tear of [false, true]) {
      const legal = new Set([...crashStates(recording, { exhaustive: 12, tear })].map(key));
      const sampled = [...crashStates(recording, { exhaustive: 0, tear, seed })];
      for (const state of sampled) expect(legal, state.name).toContain(key(state));
      const ends = sampled.filter(({ at }) => at === recording.log.length).map(key);
      expect(ends).toContain(`${recording.log.length} ${durableDisk(recording).digest()}`);
      expect(ends).toContain(`${recording.log.length} ${recording.disk.digest()}`);
    }
  });

  test('where there are too many: none, each alone, each missing and every prefix', async () => {
    const recording = recordingOf({ a: '...' });
    await using a = await recording.backend.open('/a', 'write');
    for (const [sector, letter] of [...'xyz'].entries()) await write(a, sector, letter);
    const states = [...crashStates(recording, { exhaustive: 2, samples: 0 })]
      .filter(({ name }) => name.startsWith('power'))
      .map(({ name, disk }) => `${name} ${look(disk)}`);
    expect(states).toEqual([
      'power@3[none] a=...',
      'power@3[only 0] a=x..',
      'power@3[all but 0] a=.yz',
      'power@3[up to 0] a=x..',
      'power@3[only 1] a=.y.',
      'power@3[all but 1] a=x.z',
      'power@3[up to 1] a=xy.',
      'power@3[only 2] a=..z',
      'power@3[all but 2] a=xy.',
      'power@3[up to 2] a=xyz',
    ]);
  });

  test('where there are too many, torn: a write is also cut short after those before it', async () => {
    const recording = recordingOf({ a: '.'.repeat(20) });
    await using a = await recording.backend.open('/a', 'write');
    await write(a, 0, 'xxxx');
    await write(a, 4, 'y'.repeat(16));
    const torn = [...crashStates(recording, { tear: true, samples: 0 })]
      .filter(({ name }) => name.includes('pieces of 1'))
      .map(({ disk }) => look(disk));
    expect(torn[0]).toMatch(/^a=x{4}y+\.+$/);
    expect(torn[1]).toMatch(/^a=x{4}[y.]{16}$/);
    expect(torn).toHaveLength(2);
  });

  test('are the same for the same seed, and others for another', async () => {
    const recording = await randomRecording(1, 20);
    const of = (seed: number): string[] =>
      [...crashStates(recording, { exhaustive: 2, tear: true, seed })].map(
        ({ name, disk }) => `${name} ${disk.digest()}`,
      );
    expect(of(1)).toEqual(of(1));
    expect(of(1)).not.toEqual(of(2));
    const names = [...crashStates(recording, { tear: true })].map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });

  test('belong to the caller: writing to one changes no other', async () => {
    const recording = await randomRecording(3, 6);
    const untouched = [...crashStates(recording)].map(({ disk }) => disk.digest());
    const touched: string[] = [];
    for (const { disk } of crashStates(recording)) {
      touched.push(disk.digest());
      for (const file of disk.files.values()) file.write(0, sectors('zzzzzzzz'));
      disk.names.clear();
    }
    expect(touched).toEqual(untouched);
    expect(recording.disk.digest()).toBe(untouched.at(-1));
  });

  test('give new files inodes that no lost file has', async () => {
    const recording = recordingOf({});
    await using journal = await recording.backend.create('/journal', { secret: true });
    await write(journal, 0, 'j');
    for (const { disk, name } of crashStates(recording)) {
      await using file = await memoryBackend(disk).create('/other', { secret: false });
      expect(await file.length(), name).toBe(0);
      await write(file, 0, 'o');
      expect(look(disk), name).not.toContain('journal=o');
    }
  });

  test('end with the durable disk at the least, and with the disk as it is at the most', async () => {
    const recording = await randomRecording(5, 6);
    const last = [...crashStates(recording, { exhaustive: 12 })].filter(
      ({ at }) => at === recording.log.length,
    );
    expect(look((last[0] as CrashState).disk)).toBe(look(durableDisk(recording)));
    expect((last.at(-1) as CrashState).disk.digest()).toBe(recording.disk.digest());
  });
});
