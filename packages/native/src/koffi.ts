import { createRequire } from 'node:module';

/** What is used of koffi (https://koffi.dev), an optional dependency: calls C functions without a compiler. */
export interface Koffi {
  load(library: null): { func(prototype: string): KoffiFunction };
  errno(): number;
}

export interface KoffiFunction {
  (...args: readonly unknown[]): number;
  /** Off the main thread; `errno` is not known then. The last argument is a callback. */
  async(...args: readonly unknown[]): void;
}

const require = createRequire(import.meta.url);

/** Where koffi is installed; null: it is not, the system is not Linux, or `DOWNFOLD_NATIVE=0` says to do without. */
export function findKoffi(): string | null {
  if (process.env['DOWNFOLD_NATIVE'] === '0' || process.platform !== 'linux') return null;
  try {
    return require.resolve('koffi');
  } catch (cause) {
    if (codeOf(cause) === 'MODULE_NOT_FOUND') return null;
    throw cause;
  }
}

/**
 * Loads koffi. Its own loader finds out which of its libraries fits the machine, with 46 of Node's modules, in four times what loading the
 * library takes: the one of Linux with glibc is tried first. Its package is of koffi's very version; koffi pins it.
 */
export function loadKoffi(path: string): Koffi {
  const library = `@koromix/koffi-linux-${process.arch}/linux_${process.arch}/koffi.node`;
  try {
    return createRequire(path)(library) as Koffi;
  } catch (cause) {
    // another C library, or koffi built where it is: it knows itself
    if (!NOT_THIS_ONE.has(codeOf(cause))) throw cause;
    return require(path) as Koffi;
  }
}

const NOT_THIS_ONE: ReadonlySet<string | undefined> = new Set([
  'MODULE_NOT_FOUND',
  'ERR_DLOPEN_FAILED',
]);

function codeOf(cause: unknown): string | undefined {
  return (cause as NodeJS.ErrnoException).code;
}
