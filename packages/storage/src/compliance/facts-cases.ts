import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { assertSameBytes } from '@downfold/compliance';
import { hostOffset } from '@downfold/units';
import {
  assertRefused,
  contentOf,
  createFile,
  createWith,
  hookOf,
  MAKES_FILES,
  openWith,
  pathOf,
  type StorageCase,
} from './subject.ts';

/** Clocks of file systems tick every 10 ms at the slowest here. */
const CLOCK_TICK_MS = 20;

const identity: readonly StorageCase[] = [
  {
    id: 'identity/same-file-same-identity',
    because: 'loops and shared layers are found by identity, whatever a file is called',
    run: async (subject) => {
      const path = pathOf(subject, 'file');
      await using file = await openWith(subject, new Uint8Array(0));
      await using again = await subject.backend.open(path, 'read');
      assert.deepEqual(again.identity, file.identity, 'opened again');
      assert.deepEqual((await subject.backend.facts(path)).identity, file.identity, 'its facts');
      assert.match(file.identity.device, /^\d+$/, 'device is decimal text');
      assert.match(file.identity.inode, /^\d+$/, 'inode is decimal text');
    },
  },
  {
    id: 'identity/same-after-rename',
    because: 'a name says nothing about the file: a moved image is the same image',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createWith(subject, context.bytes(10), 'old');
      const before = { ...file.identity };
      await subject.backend.rename(pathOf(subject, 'old'), pathOf(subject, 'new'));
      await using again = await subject.backend.open(pathOf(subject, 'new'), 'read');
      assert.deepEqual(again.identity, before);
      assert.deepEqual(file.identity, before, 'of the open file');
    },
  },
  {
    id: 'identity/differs-between-files',
    because: 'two layers must not be taken for one',
    run: async (subject) => {
      const seen = new Set<string>();
      for (const name of ['a', 'b', 'c', 'd']) {
        await using file = await openWith(subject, new Uint8Array(0), name);
        seen.add(`${file.identity.device}:${file.identity.inode}`);
      }
      assert.equal(seen.size, 4, 'identities of four files');
    },
  },
  {
    id: 'identity/of-a-directory-is-its-own',
    because: 'a directory must not be taken for a layer',
    needs: MAKES_FILES,
    run: async (subject) => {
      await using file = await createFile(subject);
      const { identity } = await subject.backend.facts(subject.directory);
      assert.notDeepEqual(identity, file.identity);
    },
  },
  {
    id: 'identity/same-through-links',
    because: 'the same image may be in a chain by two names',
    needs: [...MAKES_FILES, 'links'],
    run: async (subject, context) => {
      await using file = await createWith(subject, context.bytes(10));
      await hookOf(subject, 'link')(pathOf(subject, 'file'), pathOf(subject, 'second'));
      await hookOf(subject, 'symbolicLink')(pathOf(subject, 'file'), pathOf(subject, 'symbolic'));
      for (const name of ['second', 'symbolic']) {
        const path = pathOf(subject, name);
        await using again = await subject.backend.open(path, 'read');
        assert.deepEqual(again.identity, file.identity, name);
        assert.deepEqual((await subject.backend.facts(path)).identity, file.identity, name);
        assertSameBytes(await contentOf(again), await contentOf(file), name);
      }
    },
  },
];

const facts: readonly StorageCase[] = [
  {
    id: 'facts/of-a-file',
    because: 'the pool is scanned by facts, without opening anything',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      await using file = await createWith(subject, context.bytes(5000));
      const found = await subject.backend.facts(pathOf(subject, 'file'));
      assert.equal(found.kind, 'file', 'kind');
      assert.equal(found.length, 5000, 'length');
      assert.ok(Number.isSafeInteger(found.allocated) && found.allocated >= 0, 'allocated');
      await file.write(hostOffset(5000), context.bytes(1000));
      assert.equal((await subject.backend.facts(pathOf(subject, 'file'))).length, 6000, 'length');
    },
  },
  {
    id: 'facts/of-a-directory',
    because: 'a directory under the name of an image is told apart',
    needs: MAKES_FILES,
    run: async (subject) => {
      assert.equal((await subject.backend.facts(subject.directory)).kind, 'directory');
    },
  },
  {
    id: 'facts/modified-changes-with-a-write',
    because: 'a resumed commit refuses a source that somebody wrote to meanwhile',
    needs: ['write', 'modified'],
    run: async (subject, context) => {
      const modified = async (): Promise<bigint> =>
        BigInt((await subject.backend.facts(pathOf(subject, 'file'))).modified);
      await using file = await createWith(subject, context.bytes(5000));
      const before = await modified();
      await contentOf(file);
      assert.equal(await modified(), before, 'after a read');
      await sleep(CLOCK_TICK_MS);
      await file.write(hostOffset(10), context.bytes(1));
      assert.ok((await modified()) > before, 'later after a write');
    },
  },
  {
    id: 'facts/missing-is-not-found',
    because: 'a missing backing file is reported as such',
    run: async (subject) => {
      const missing = pathOf(subject, 'missing');
      await assertRefused('STORAGE_NOT_FOUND', 'facts', () => subject.backend.facts(missing));
      await assertRefused('STORAGE_NOT_FOUND', 'realPath', () => subject.backend.realPath(missing));
    },
  },
  {
    id: 'list/missing-is-not-found',
    because: 'an empty list would say that a commit strands nobody',
    needs: ['names'],
    run: async (subject) => {
      const missing = pathOf(subject, 'missing');
      await assertRefused('STORAGE_NOT_FOUND', 'list', () => subject.backend.list(missing));
    },
  },
  {
    id: 'facts/of-what-is-there',
    because: 'a file that is stored elsewhere has facts too, and one name',
    run: async (subject, context) => {
      await using file = await openWith(subject, context.bytes(5000));
      const path = pathOf(subject, 'file');
      const found = await subject.backend.facts(path);
      assert.ok(found.kind === 'file' || found.kind === 'block-device', found.kind);
      assert.equal(found.length, 5000, 'length');
      assert.equal(await file.length(), 5000, 'length of the open file');
      assert.ok(BigInt(found.modified) >= 0n, 'modified');
      assert.equal(await subject.backend.realPath(path), path, 'real path');
    },
  },
  {
    id: 'facts/of-a-special-file',
    because: 'asking about a FIFO must not wait for its other end',
    needs: [...MAKES_FILES, 'special-files'],
    run: async (subject) => {
      await hookOf(subject, 'makeSpecial')(pathOf(subject, 'special'));
      assert.equal((await subject.backend.facts(pathOf(subject, 'special'))).kind, 'other');
      assert.deepEqual(await subject.backend.list(subject.directory), [
        { name: 'special', kind: 'other' },
      ]);
    },
  },
];

const paths: readonly StorageCase[] = [
  {
    id: 'list/names-what-is-there',
    because: 'siblings that a commit would strand are found by listing',
    needs: MAKES_FILES,
    run: async (subject) => {
      assert.deepEqual(await subject.backend.list(subject.directory), [], 'the empty directory');
      for (const name of ['b', 'a', 'c'])
        await (await createFile(subject, name))[Symbol.asyncDispose]();
      await subject.backend.remove(pathOf(subject, 'a'));
      const found = await subject.backend.list(subject.directory);
      assert.deepEqual(
        found.toSorted((left, right) => left.name.localeCompare(right.name)),
        [
          { name: 'b', kind: 'file' },
          { name: 'c', kind: 'file' },
        ],
      );
    },
  },
  {
    id: 'real-path/of-a-file-is-itself',
    because: 'what may be opened is decided by real paths',
    needs: MAKES_FILES,
    run: async (subject) => {
      await using _file = await createFile(subject);
      const path = pathOf(subject, 'file');
      assert.equal(await subject.backend.realPath(path), path);
      assert.equal(await subject.backend.realPath(subject.directory), subject.directory);
    },
  },
  {
    id: 'real-path/follows-links',
    because: 'a link out of the allowed directories must not let anyone out',
    needs: [...MAKES_FILES, 'links'],
    run: async (subject, context) => {
      await using _file = await createWith(subject, context.bytes(10));
      const link = hookOf(subject, 'symbolicLink');
      await link(pathOf(subject, 'file'), pathOf(subject, 'one'));
      await link(pathOf(subject, 'one'), pathOf(subject, 'two'));
      await link(pathOf(subject, 'missing'), pathOf(subject, 'dangling'));
      await link(pathOf(subject, 'loop'), pathOf(subject, 'loop'));
      const { backend } = subject;
      assert.equal(await backend.realPath(pathOf(subject, 'two')), pathOf(subject, 'file'));
      for (const name of ['dangling', 'loop']) {
        const path = pathOf(subject, name);
        await assertRefused('STORAGE_NOT_FOUND', name, () => backend.realPath(path));
        await assertRefused('STORAGE_NOT_FOUND', name, () => backend.open(path, 'read'));
        await assertRefused('STORAGE_EXISTS', name, () => backend.create(path, { secret: true }));
      }
      const kinds = (await backend.list(subject.directory)).map(({ kind }) => kind);
      assert.deepEqual(kinds.toSorted(), ['file', 'link', 'link', 'link', 'link']);
    },
  },
];

const sharing: readonly StorageCase[] = [
  {
    id: 'shares-blocks/changes-nothing',
    because: 'a plan asks, and writes nothing',
    needs: MAKES_FILES,
    run: async (subject, context) => {
      const [a, b] = [context.bytes(20_000), context.bytes(30_000)];
      await using from = await createWith(subject, a, 'from');
      await using to = await createWith(subject, b, 'to');
      const { backend } = subject;
      for (const [source, target] of [
        ['from', 'to'],
        ['to', 'from'],
        ['to', 'to'],
      ] as const) {
        const answer = await backend.sharesBlocks(pathOf(subject, source), pathOf(subject, target));
        assert.equal(typeof answer, 'boolean');
      }
      assertSameBytes(await contentOf(from), a, 'the one');
      assertSameBytes(await contentOf(to), b, 'the other');
    },
  },
];

export const factsCases: readonly StorageCase[] = [...sharing, ...identity, ...facts, ...paths];
