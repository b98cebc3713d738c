import { byteLength, hostOffset } from '@downfold/units';
import type { BackendDriver } from '../../src/index.ts';
import { withFiles, withStorages } from '../support.ts';
import type { Mutant } from './mutant.ts';

/** Lengths and discards that go wrong. */
export const lengthMutants: readonly Mutant[] = [
  {
    name: 'a new file has a sector',
    killedBy: 'length/of-a-new-file-is-zero',
    driver: withFirstSector,
  },
  {
    name: 'a new file is not empty',
    killedBy: 'create/makes-an-empty-file',
    driver: withFirstSector,
  },
  {
    name: 'far lengths are cut to 32 bits',
    killedBy: 'sparse/far-lengths',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        setLength: (length) => file.setLength(byteLength(length % 2 ** 32)),
      })),
  },
  {
    name: 'setLength does nothing where it is absent',
    killedBy: 'set-length/refused-when-absent',
    without: ['resize'],
    backend: (backend) =>
      withStorages(backend, () => ({
        supports: { discard: true, resize: false },
        setLength: async () => {},
      })),
  },
  {
    name: 'discard does nothing where it is absent',
    killedBy: 'discard/refused-when-absent',
    without: ['discard'],
    backend: (backend) =>
      withStorages(backend, () => ({
        supports: { discard: false, resize: true },
        discard: async () => {},
      })),
  },
  {
    name: 'setLength keeps what it cut',
    killedBy: 'set-length/what-was-cut-is-gone',
    driver: (driver) =>
      withFiles(driver, (file) => {
        let cut = new Uint8Array(0);
        return {
          setLength: async (length) => {
            const before = new Uint8Array(await file.length());
            await file.read(hostOffset(0), before);
            if (length < before.length) cut = before;
            await file.setLength(length);
            if (length > before.length)
              await file.write(
                hostOffset(before.length),
                cut.subarray(before.length, length),
                'old',
              );
          },
        };
      }),
  },
  {
    name: 'setLength only grows',
    killedBy: 'set-length/cuts',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        setLength: async (length) => {
          if (length > (await file.length())) await file.setLength(length);
        },
      })),
  },
  {
    name: 'discard does nothing',
    killedBy: 'discard/reads-as-zeros',
    driver: (driver) => withFiles(driver, () => ({ discard: async () => {} })),
  },
  {
    name: 'discard writes zeros and gives no space back',
    killedBy: 'discard/gives-space-back',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        discard: async ({ offset, length }) => {
          const end = Math.min(await file.length(), offset + length);
          if (end > offset) await file.write(offset, new Uint8Array(end - offset), 'zeros');
        },
      })),
  },
  {
    name: 'discard grows the file',
    killedBy: 'discard/keeps-the-length',
    driver: (driver) =>
      withFiles(driver, (file) => ({
        discard: async (range) => {
          await file.discard(range);
          await file.writeZeroes(range, 'discard');
        },
      })),
  },
  {
    name: 'an absent ability is claimed to be there',
    killedBy: 'set-length/grows-with-zeros',
    driver: (driver) => withFiles(driver, () => ({ setLength: async () => {} })),
  },
];

function withFirstSector(driver: BackendDriver): BackendDriver {
  return {
    ...driver,
    create: async (path, options) => {
      const file = await driver.create(path, options);
      await file.write(hostOffset(0), new Uint8Array(512), 'first sector');
      return file;
    },
  };
}
