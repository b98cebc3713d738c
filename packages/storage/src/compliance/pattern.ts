import { byteLength } from '@downfold/units';
import { bytesTo } from '../bytes-to.ts';
import { openStorage } from '../open.ts';
import type { Storage } from '../storage.ts';

/** Files of another backend than the subject's: read-only, their bytes are computed. */
export function patternStorage(length: number): Storage {
  const refuse = (): Promise<never> => Promise.reject(new Error('the pattern is never written'));
  return openStorage({
    label: 'pattern',
    writable: false,
    supports: { discard: false, resize: false },
    identity: { device: '0', inode: '0' },
    descriptor: null,
    length: async () => byteLength(length),
    read: async (offset, target) => {
      const filled = Math.max(0, Math.min(target.length, length - offset));
      target.set(patternBytes(offset, filled));
      return filled;
    },
    runAt: async (offset) => bytesTo(length, offset),
    write: refuse,
    writeZeroes: refuse,
    copyFrom: refuse,
    discard: refuse,
    setLength: refuse,
    flush: refuse,
    [Symbol.asyncDispose]: async () => {},
  });
}

/** `length` bytes of the pattern from `offset`; neighbours, sectors and pages differ. */
export function patternBytes(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) {
    const at = offset + index;
    bytes[index] = at + (at >>> 9) * 7 + (at >>> 16) * 31;
  }
  return bytes;
}
