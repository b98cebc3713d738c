import { byteLength, hostOffset } from '@downfold/units';
import { describe, expect, test } from 'vitest';
import { openBackend, type Storage, type StorageDriver } from '../src/index.ts';
import { flatBackend } from './flat-backend.ts';
import { oneByOne, withFiles } from './support.ts';

/** Files of a flat backend whose drivers are changed, and the calls that reach them. */
function watched(change: (file: StorageDriver) => Partial<StorageDriver> = () => ({})): {
  create(name: string): Promise<Storage>;
  readonly calls: string[];
} {
  const calls: string[] = [];
  const changed = withFiles(flatBackend(), change);
  const driver = withFiles(changed, (file, path) => ({
    write: (offset, source, what) => {
      calls.push(`${path} write ${source.length} at ${offset}: ${what}`);
      return file.write(offset, source, what);
    },
    writeZeroes: (range, what) => {
      calls.push(`${path} zeros ${range.length} at ${range.offset}: ${what}`);
      return file.writeZeroes(range, what);
    },
    copyFrom: oneByOne((source, from, to, length, what) => {
      calls.push(`${path} copy ${length} from ${from} to ${to}: ${what}`);
      return file.copyFrom([{ source, from, to, length }], what);
    }),
    flush: (barrier) => {
      calls.push(`${path} flush: ${barrier}`);
      return file.flush(barrier);
    },
  }));
  const backend = openBackend(driver);
  return { create: (name) => backend.create(`/${name}`, { secret: false }), calls };
}

const at = hostOffset;

describe('the wrapper', () => {
  test('passes the names of writes and barriers on, `data` when there is none', async () => {
    const { create, calls } = watched();
    await using a = await create('a');
    await using b = await create('b');
    await a.write(at(0), new Uint8Array(10));
    await a.write(at(10), new Uint8Array(2), { what: 'l2' });
    await a.writeZeroes({ offset: at(12), length: byteLength(3) }, { what: 'l1' });
    await b.copyFrom([{ source: a, from: at(1), to: at(2), length: byteLength(5) }], {
      what: 'table',
    });
    await a.flush('W1');
    expect(calls).toEqual([
      '/a write 10 at 0: data',
      '/a write 2 at 10: l2',
      '/a zeros 3 at 12: l1',
      '/b copy 5 from 1 to 2: table',
      '/a flush: W1',
    ]);
  });

  test('asks the driver for nothing when there is nothing to do', async () => {
    const { create, calls } = watched();
    await using a = await create('a');
    await using b = await create('b');
    await a.write(at(5), new Uint8Array(0));
    await a.writeZeroes({ offset: at(5), length: byteLength(0) });
    await a.copyFrom([{ source: b, from: at(5), to: at(5), length: byteLength(0) }]);
    expect(calls).toEqual([]);
  });

  test('goes on through a buffer where a driver stops copying', async () => {
    let turns = 0;
    const { create, calls } = watched((file) => ({
      copyFrom: oneByOne(async (source, from, to, length, what) => {
        turns += 1;
        if (turns > 2) return 0;
        return await file.copyFrom(
          [{ source, from, to, length: byteLength(Math.min(length, 1000)) }],
          what,
        );
      }),
    }));
    await using source = await create('source');
    await using target = await create('target');
    const bytes = Uint8Array.from({ length: 3000 }, (_, index) => index % 251);
    await source.write(at(0), bytes);
    await target.copyFrom([{ source, from: at(0), to: at(7), length: byteLength(3000) }], {
      what: 'extent',
    });
    expect(calls.slice(1)).toEqual([
      '/target copy 3000 from 0 to 7: extent',
      '/target copy 2000 from 1000 to 1007: extent',
      '/target copy 1000 from 2000 to 2007: extent',
      '/target write 1000 at 2007: extent',
    ]);
    const found = new Uint8Array(3000);
    await target.read(at(7), found);
    expect(found).toEqual(bytes);
  });

  test('stops a copy between its pieces when a flush has failed meanwhile', async () => {
    const { create, calls } = watched((file) => ({
      copyFrom: oneByOne(async (source, from, to, _length, what) => {
        await new Promise((resolve) => setImmediate(resolve));
        return await file.copyFrom([{ source, from, to, length: byteLength(1) }], what);
      }),
      flush: () => Promise.reject(new Error('the disk is gone')),
    }));
    await using source = await create('source');
    await using target = await create('target');
    const copy = target.copyFrom([{ source, from: at(0), to: at(0), length: byteLength(1000) }]);
    const flush = target.flush('W6');
    await expect(flush).rejects.toMatchObject({
      code: 'STORAGE_FLUSH_FAILED',
      details: { file: '/target', barrier: 'W6' },
      cause: { message: 'the disk is gone' },
    });
    await expect(copy).rejects.toMatchObject({ code: 'STORAGE_FLUSH_FAILED' });
    expect(calls.filter((call) => call.includes('copy'))).toHaveLength(1);
  });

  test('stops a copy between its pieces when either file is closed', async () => {
    for (const closes of ['source', 'target']) {
      const { create } = watched((file) => ({
        copyFrom: oneByOne(async (source, from, to, _length, what) => {
          await new Promise((resolve) => setImmediate(resolve));
          return await file.copyFrom([{ source, from, to, length: byteLength(1) }], what);
        }),
      }));
      await using source = await create('source');
      await using target = await create('target');
      const copy = target.copyFrom([{ source, from: at(0), to: at(0), length: byteLength(1000) }]);
      const closed = (closes === 'source' ? source : target)[Symbol.asyncDispose]();
      await expect(copy).rejects.toMatchObject({
        code: 'STORAGE_CLOSED',
        details: { file: `/${closes}` },
      });
      await closed;
      expect(await (closes === 'source' ? target : source).length()).toBeLessThan(2);
    }
  });

  test('closes the driver only after the last call under way has settled', async () => {
    const seen: string[] = [];
    const slowly = async (what: string): Promise<void> => {
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(what);
    };
    const { create } = watched(() => ({
      read: async () => {
        await slowly('read');
        return 0;
      },
      flush: async () => {
        await slowly('flush');
        await slowly('flush');
        throw new Error('the disk is gone');
      },
      [Symbol.asyncDispose]: () => slowly('close'),
    }));
    const file = await create('file');
    const read = file.read(at(0), new Uint8Array(1));
    const flush = expect(file.flush('W1')).rejects.toThrow('W1');
    await Promise.all([file[Symbol.asyncDispose](), file[Symbol.asyncDispose](), read, flush]);
    expect(seen).toEqual(['read', 'flush', 'flush', 'close']);
  });

  test('reports a failure to close to everyone who waits for it', async () => {
    const { create } = watched(() => ({
      [Symbol.asyncDispose]: () => Promise.reject(new Error('EIO')),
    }));
    const file = await create('file');
    const closes = [file[Symbol.asyncDispose](), file[Symbol.asyncDispose]()];
    for (const close of closes) await expect(close).rejects.toThrow('EIO');
    await expect(file.length()).rejects.toMatchObject({ code: 'STORAGE_CLOSED' });
  });
});
