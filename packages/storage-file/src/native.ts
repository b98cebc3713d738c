import { createRequire } from 'node:module';
import { constants } from 'node:os';

/** fallocate(2): the file keeps its length, and the range becomes a hole that reads as zeros. */
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** What is used of koffi (https://koffi.dev), an optional dependency: calls C functions without a compiler. */
interface Koffi {
  load(library: null): { func(prototype: string): (...args: readonly number[]) => number };
  errno(): number;
}

/**
 * System calls that Node lacks, through koffi. Null where it is not installed, on systems that are not Linux, and with
 * `DOWNFOLD_NATIVE=0`: everything works without them, but host space is not given back.
 */
export interface NativeCalls {
  /** @throws an error with `code`, as Node's calls do */
  punchHole(fd: number, offset: number, length: number): void;
}

let loaded: NativeCalls | null | undefined;

/** The native calls, looked for once. */
export function nativeCalls(): NativeCalls | null {
  if (process.env['DOWNFOLD_NATIVE'] === '0' || process.platform !== 'linux') return null;
  loaded ??= isInstalled() ? lazily() : null;
  return loaded;
}

const require = createRequire(import.meta.url);

function isInstalled(): boolean {
  try {
    require.resolve('koffi');
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND') return false;
    throw cause;
  }
}

/** Loading takes some 10 ms: only when there is a hole to punch. */
function lazily(): NativeCalls {
  let fallocate: ((...args: readonly number[]) => number) | undefined;
  return {
    punchHole: (fd, offset, length) => {
      const koffi = require('koffi') as Koffi;
      fallocate ??= koffi
        .load(null)
        .func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');
      const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
      if (fallocate(fd, mode, offset, length) !== 0) throw systemError(koffi.errno(), 'fallocate');
    },
  };
}

/** As Node makes them of its own calls. */
function systemError(errno: number, call: string): NodeJS.ErrnoException {
  const code = Object.entries(constants.errno).find(([, number]) => number === errno)?.[0];
  return Object.assign(new Error(`${code ?? errno}: ${call}`), {
    code: code ?? `errno ${errno}`,
    errno: -errno,
    syscall: call,
  });
}
