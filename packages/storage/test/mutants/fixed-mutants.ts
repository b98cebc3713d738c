import { byteLength, hostOffset } from '@downfold/units';
import type { BackendDriver } from '../../src/index.ts';
import { readOnly, sealed, sealedDriver } from '../sealed.ts';
import { withFiles } from '../support.ts';
import type { Mutant } from './mutant.ts';

const BLOCK_BYTES = 512;
/** Most bytes that the server of a mutant takes at once. */
const REQUEST_BYTES = 1 << 20;

/** Places with a length that stays, or without writing, and what is wrong with them. */
export const fixedMutants: readonly Mutant[] = [
  {
    ...sealed,
    name: 'zeros stop a byte early',
    killedBy: 'fixed/agrees-with-a-flat-model',
    driver: (driver) =>
      withFiles(sealedDriver(driver), (file) => ({
        writeZeroes: (range, what) =>
          file.writeZeroes({ ...range, length: byteLength(range.length - 1) }, what),
      })),
  },
  {
    ...sealed,
    name: 'what is longer than a request is cut',
    killedBy: 'fixed/large',
    driver: (driver) =>
      withFiles(sealedDriver(driver), (file) => ({
        write: (offset, source, what) =>
          file.write(offset, source.subarray(0, REQUEST_BYTES), what),
      })),
  },
  {
    ...sealed,
    name: 'blocks are read, changed and written without waiting for one another',
    killedBy: 'fixed/changes-beside-each-other',
    driver: (driver) => withFiles(sealedDriver(driver), careless),
  },
  {
    ...sealed,
    name: 'every open has a copy of its own',
    killedBy: 'fixed/read-through-another-open',
    driver: (driver) =>
      withFiles(sealedDriver(driver), (file) => {
        let copy: Uint8Array | undefined;
        return {
          read: async (offset, target) => {
            if (file.writable) return await file.read(offset, target);
            if (copy === undefined) {
              copy = new Uint8Array(await file.length());
              await file.read(hostOffset(0), copy);
            }
            const part = copy.subarray(offset, offset + target.length);
            target.set(part);
            return part.length;
          },
        };
      }),
  },
  {
    ...sealed,
    name: 'what fits is written, and the rest is refused',
    killedBy: 'grow/refused-when-absent',
    driver: (driver) =>
      withFiles(sealedDriver(driver), (file) => ({
        write: async (offset, source, what) => {
          const fits = Math.max(0, (await file.length()) - offset);
          await file.write(offset, source.subarray(0, fits), what);
          await file.write(hostOffset(offset + fits), source.subarray(fits), what);
        },
      })),
  },
  {
    ...readOnly,
    name: 'opens for writing what it cannot write',
    killedBy: 'write/refused-when-absent',
    driver: sealedDriver,
  },
  {
    ...sealed,
    name: 'lists nothing where it cannot list',
    killedBy: 'names/refused-when-absent',
    driver: (driver) => ({ ...sealedDriver(driver), list: async () => [] }),
  },
  {
    ...sealed,
    name: 'hands out locks that lock nothing',
    killedBy: 'lock/refused-when-absent',
    driver: (driver) => ({
      ...sealedDriver(driver),
      lock: async () => ({
        identity: { device: '1', inode: '1' },
        remote: true,
        change: async () => {},
        [Symbol.asyncDispose]: async () => {},
      }),
    }),
  },
  {
    ...sealed,
    name: 'says that nothing is in use when it does not know',
    killedBy: 'facts/unknown-are-what-they-say',
    driver: withFacts({ allocated: byteLength(0) }),
  },
  {
    ...sealed,
    name: 'the length is that of whole blocks',
    killedBy: 'facts/of-what-is-there',
    driver: withFacts({ length: byteLength(BLOCK_BYTES * 10) }),
  },
  {
    name: 'opening for writing makes the file',
    killedBy: 'open/missing-is-not-made',
    driver: (driver) => ({
      ...driver,
      open: async (path, mode) => {
        const made = mode === 'write' && (await driver.facts(path).catch(() => null)) === null;
        return made ? await driver.create(path, { secret: false }) : await driver.open(path, mode);
      },
    }),
  },
  {
    name: 'files and their directory have one identity',
    killedBy: 'identity/of-a-directory-is-its-own',
    driver: withFacts({ identity: { device: '1', inode: '1' } }),
  },
];

/** Writes whole blocks, with what was read before. */
function careless(file: Parameters<Parameters<typeof withFiles>[1]>[0]) {
  return {
    write: async (offset: number, source: Uint8Array, what: string) => {
      const start = offset - (offset % BLOCK_BYTES);
      const end = Math.ceil((offset + source.length) / BLOCK_BYTES) * BLOCK_BYTES;
      const blocks = new Uint8Array(Math.min(end, await file.length()) - start);
      await file.read(hostOffset(start), blocks);
      await new Promise((resolve) => setImmediate(resolve));
      blocks.set(source, offset - start);
      await file.write(hostOffset(start), blocks, what);
    },
  };
}

function withFacts(
  others: Partial<Awaited<ReturnType<BackendDriver['facts']>>>,
): (driver: BackendDriver) => BackendDriver {
  return (driver) => ({
    ...driver,
    facts: async (path) => ({ ...(await driver.facts(path)), ...others }),
  });
}
