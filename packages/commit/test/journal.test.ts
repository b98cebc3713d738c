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
    for (const text of ['QFI\xfb and more\n', 'hello\n', '{"type":"INTENT"}\n', 'x'.repeat(9000)])
      expect(() => parseJournal(PATH, new TextEncoder().encode(text))).toThrow(
        'is not a journal of Downfold',
      );
  });

  it('is refused when it does not begin with an intent of a format that is known', async () => {
    const [intent] = someRecords;
    const later = { ...intent, format: 2 } as unknown as JournalRecord;
    for (const first of [later, someRecords[1] as JournalRecord]) {
      const bytes = await journalBytes([first]);
      expect(() => parseJournal(PATH, bytes)).toThrow('format that this version does not know');
    }
  });

  it('that never began is none: empty, zeros, or the start of a first line', async () => {
    const bytes = await journalBytes(someRecords.slice(0, 1));
    for (const left of [new Uint8Array(0), new Uint8Array(512), bytes.subarray(0, 5)])
      expect(parsed(left)).toEqual([]);
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
