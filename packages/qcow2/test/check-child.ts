/**
 * Opens an image of a real file in a process of its own and says what that took, as one line of JSON on stdout.
 * node --conditions=@downfold/source check-child.ts PATH check|write
 */
import { open } from 'node:fs/promises';
import { bytesTo, openStorage, type StorageDriver } from '@downfold/storage';
import { byteLength } from '@downfold/units';
import { qcow2 } from '../src/index.ts';

const [path = '', what = ''] = process.argv.slice(2);
const started = performance.now();
await using image = await qcow2.open(openStorage(await fileDriver(path)), {
  mode: what === 'write' ? 'write' : 'read',
});
const report = what === 'check' ? await image.check() : null;
console.log(
  JSON.stringify({
    report,
    seconds: (performance.now() - started) / 1000,
    peakMebibytes: process.resourceUsage().maxRSS / 1024,
  }),
);

/** A real file, for reading; says that it can be written. */
async function fileDriver(path: string): Promise<StorageDriver> {
  const file = await open(path, 'r');
  const { size, dev, ino } = await file.stat();
  const refuse = async (): Promise<never> => {
    throw new Error('nothing is written here');
  };
  return {
    label: path,
    writable: true,
    supports: { discard: false, resize: false },
    identity: { device: String(dev), inode: String(ino) },
    descriptor: null,
    length: async () => byteLength(size),
    read: async (offset, target) => (await file.read(target, 0, target.length, offset)).bytesRead,
    runAt: async (offset) => bytesTo(size, offset),
    write: refuse,
    writeZeroes: refuse,
    copyFrom: refuse,
    discard: refuse,
    setLength: refuse,
    flush: refuse,
    [Symbol.asyncDispose]: () => file.close(),
  };
}
