import { memoryBackend } from '@downfold/storage-memory';
import { hostOffset } from '@downfold/units';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type JournalRecord, journalPath, parseJournal } from '../src/index.ts';
import { createJournal, openJournal, readJournal } from '../src/journal.ts';
import { journalBytes, someIntent, someRecords } from './journals.ts';

const PATH = '/disk.toy.downfold';

/** What a reader makes of bytes: records, or the code of the refusal. */
function parsed(bytes: Uint8Array): readonly JournalRecord[] | string {
  try {
    return parseJournal(PATH, bytes).records;
  } catch (cause) {
    return (cause as { code: string }).code;
  }
}

/** Refused, or records that were written, from the first on, none left out and none changed. */
function expectPrefix(
  found: readonly JournalRecord[] | string,
  records: readonly JournalRecord[],
): void {
  if (found === 'COMMIT_JOURNAL_BAD') return;
  expect(found).toEqual(records.slice(0, found.length));
}

/** A first record of some sectors. */
const longIntent = {
  ...someIntent,
  plan: {
    ...someIntent.plan,
    strands: Array.from({ length: 130 }, (_, n) => `/vm/Größe-${n}.toy`),
  },
};

/** Text, zeros for a `number` of bytes, and so on. */
function file(...parts: readonly (string | number)[]): Uint8Array {
  return Buffer.concat(
    parts.map((part) => (typeof part === 'number' ? Buffer.alloc(part) : Buffer.from(part))),
  );
}

/** Nothing that a crash can leave of a journal. */
const foreignFiles: readonly Uint8Array[] = [
  file('a diary, not a journal\n'),
  file('a '),
  file('deadbeef 1'),
  file('deadbeef is a number\n'),
  file('deadbeef 0 \n'),
  file('deadbeef 0 {"type":"ABORT"'),
  file('abcdef\n'),
  file('\n'),
  file('DEADBEEF 0 {"type":"INTENT"'),
  file('deadbeefdeadbeef'),
  file('hello\n'),
  file('{"type":"INTENT"}\n'),
  file('x'.repeat(9000)),
  file('QFI\xfb and more\n'),
  file(8, 'text after some zeros'),
  file('ab', 510, 'text after a sector that was not written'),
  file(512, 'two\nlines\n'),
  file(512, '\x1f\x8b\x08 binary after a sector that was not written'),
  Buffer.concat([file(32_768), Buffer.from([1]), file('CD001')]),
  file(65 << 20),
];

describe('a journal', () => {
  it('lies beside its image', () => {
    expect(journalPath('/vm/disk.qcow2')).toBe('/vm/disk.qcow2.downfold');
  });

  it('gives back the records that were appended, and where it ends', async () => {
    const bytes = await journalBytes(someRecords);
    expect(parseJournal(PATH, bytes)).toEqual({ records: someRecords, end: bytes.length });
  });

  it('cut anywhere gives the whole records before the cut', async () => {
    const bytes = await journalBytes(someRecords);
    const newlines = [...bytes.keys()].filter((at) => bytes[at] === 0x0a);
    for (let length = 0; length <= bytes.length; length++) {
      const whole = newlines.filter((at) => at < length).length;
      const { records, end } = parseJournal(PATH, bytes.subarray(0, length));
      expect(records).toEqual(someRecords.slice(0, whole));
      expect(end).toBe(whole === 0 ? 0 : (newlines[whole - 1] as number) + 1);
    }
  });

  it('with any bit flipped is refused, or gives the records before it', async () => {
    const bytes = await journalBytes(someRecords);
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      const found = parsed(flipped);
      expectPrefix(found, someRecords);
      expect(found.length, `bit ${bit}`).not.toBe(someRecords.length);
    }
  });

  it('with anything overwritten, cut or appended is refused, or gives a prefix', async () => {
    const bytes = await journalBytes(someRecords);
    const change = fc.record({
      at: fc.nat(bytes.length),
      junk: fc.uint8Array({ maxLength: 700 }),
      length: fc.nat(bytes.length + 600),
    });
    fc.assert(
      fc.property(change, ({ at, junk, length }) => {
        const changed = new Uint8Array(Math.max(bytes.length, at + junk.length, length));
        changed.set(bytes);
        changed.set(junk, at);
        expectPrefix(parsed(changed.subarray(0, length)), someRecords);
      }),
      { numRuns: 2000, seed: 1 },
    );
  });

  it('followed by zeros, which a file system may show after a crash, gives its records', async () => {
    const bytes = await journalBytes(someRecords);
    const longer = new Uint8Array(bytes.length + 4096);
    longer.set(bytes);
    expect(parseJournal(PATH, longer)).toEqual({ records: someRecords, end: bytes.length });
  });

  it('is refused when it was edited: a record changed, taken out, doubled, moved, or a line put in', async () => {
    const text = new TextDecoder().decode(await journalBytes(someRecords));
    const lines = text.split('\n');
    const [intent, second, third, ...others] = lines as [string, string, string, ...string[]];
    const edited = [
      text.replace('"copied":512', '"copied":513'),
      [intent, third, ...others].join('\n'),
      [intent, second, second, third, ...others].join('\n'),
      [intent, third, second, ...others].join('\n'),
      [intent, 'hello', second, third, ...others].join('\n'),
    ];
    for (const one of edited)
      expect(() => parseJournal(PATH, new TextEncoder().encode(one))).toThrow('it was edited');
  });

  it('is refused when it is somebody else’s file', () => {
    for (const bytes of foreignFiles)
      expect(
        () => parseJournal(PATH, bytes),
        new TextDecoder().decode(bytes.subarray(0, 40)),
      ).toThrow('is not a journal of Downfold');
  });

  it('is refused when its first record was damaged otherwise than by a crash', async () => {
    const bytes = await journalBytes([longIntent]);
    for (let bit = 0; bit < 8 * bytes.length; bit += 5) {
      const flipped = bytes.slice();
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      // the newline alone may be taken for one that was never written
      const [newline, byte] = [bytes.length - 1, flipped[bit >> 3] as number];
      const torn = bit >> 3 === newline && byte >= 0x20;
      expect(parsed(flipped), `bit ${bit}`).toEqual(torn ? [] : 'COMMIT_JOURNAL_BAD');
    }
  });

  it('is refused when it does not begin with an intent of a format that is known', async () => {
    const [intent] = someRecords;
    const later = { ...intent, format: 2 } as unknown as JournalRecord;
    for (const first of [later, someRecords[1] as JournalRecord]) {
      const bytes = await journalBytes([first]);
      expect(() => parseJournal(PATH, bytes)).toThrow('format that this version does not know');
    }
  });

  it('that never began is none: empty, zeros, or a first line cut anywhere, with any sectors not written', async () => {
    const bytes = await journalBytes([longIntent]);
    const sectors = Math.ceil(bytes.length / 512);
    expect(sectors).toBe(7);
    for (const left of [new Uint8Array(0), new Uint8Array(512), new Uint8Array(1 << 20)])
      expect(parsed(left)).toEqual([]);
    for (let length = 0; length < bytes.length; length++)
      expect(parsed(bytes.subarray(0, length)), `${length} bytes`).toEqual([]);
    for (let lost = 1; lost < 1 << sectors; lost++)
      for (const length of [bytes.length, bytes.length + 700, 512, 513, 1500]) {
        const left = new Uint8Array(Math.max(length, bytes.length));
        left.set(bytes);
        for (let sector = 0; sector < sectors; sector++)
          if ((lost & (1 << sector)) !== 0)
            left.fill(0, 512 * sector, Math.min(512 * (sector + 1), bytes.length));
        const found = parsed(left.subarray(0, length));
        expect(found, `${length} bytes, lost ${lost.toString(2)}`).toEqual([]);
      }
  });
});

describe('a journal on a disk', () => {
  it('is absent, and so is one that never began; that makes room for a new one', async () => {
    const backend = memoryBackend();
    expect(await readJournal(backend, PATH)).toBeNull();
    expect(await openJournal(backend, PATH)).toBeNull();
    {
      await using left = await backend.create(PATH, { secret: true });
      await left.write(hostOffset(0), new TextEncoder().encode('0123'));
    }
    expect(await readJournal(backend, PATH)).toBeNull();
    await using journal = await createJournal(backend, PATH, someIntent);
    expect(journal.records).toEqual([someIntent]);
  });

  it('that never began is left alone by whoever looks for one: its owner may be about to write it', async () => {
    const backend = memoryBackend();
    await using empty = await backend.create(PATH, { secret: true });
    expect(await openJournal(backend, PATH)).toBeNull();
    expect(await backend.list('/')).toHaveLength(1);
    expect(await empty.length()).toBe(0);
  });

  it('is not made where somebody else’s file has its name; that stays as it is', async () => {
    for (const bytes of foreignFiles) {
      const backend = memoryBackend();
      {
        await using theirs = await backend.create(PATH, { secret: false });
        await theirs.write(hostOffset(0), bytes);
      }
      const before = await backend.facts(PATH);
      for (const attempt of [
        readJournal(backend, PATH),
        openJournal(backend, PATH),
        createJournal(backend, PATH, someIntent),
      ])
        await expect(attempt).rejects.toMatchObject({ code: 'COMMIT_JOURNAL_BAD' });
      expect(await backend.facts(PATH)).toEqual(before);
    }
  });

  it('is not overwritten by a second job', async () => {
    const backend = memoryBackend();
    await using first = await createJournal(backend, PATH, someIntent);
    expect(first.intent.job).toBe(someIntent.job);
    await expect(createJournal(backend, PATH, someIntent)).rejects.toMatchObject({
      code: 'STORAGE_EXISTS',
    });
  });

  it('goes on after a torn record as if that had never been', async () => {
    const backend = memoryBackend();
    const [, second, third] = someRecords as [JournalRecord, JournalRecord, JournalRecord];
    {
      await using journal = await createJournal(backend, PATH, someIntent);
      await journal.append(second);
    }
    {
      await using storage = await backend.open(PATH, 'write');
      const torn = new TextEncoder().encode(`01234567 2 {"type":"SWITCH"${' '.repeat(900)}`);
      await storage.write(hostOffset(await storage.length()), torn);
    }
    {
      await using journal = await openJournal(backend, PATH);
      expect(journal?.records).toEqual([someIntent, second]);
      await journal?.append(third);
    }
    expect((await readJournal(backend, PATH))?.records).toEqual([someIntent, second, third]);
    const { length } = await journalBytes([someIntent, second, third]);
    expect((await backend.facts(PATH)).length).toBe(length);
  });

  it('is gone when it was removed', async () => {
    const backend = memoryBackend();
    const journal = await createJournal(backend, PATH, someIntent);
    await journal.remove();
    expect(await backend.list('/')).toEqual([]);
  });
});
