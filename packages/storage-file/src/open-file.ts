import fs from 'node:fs';
import { promisify } from 'node:util';
import { calling } from './errno.ts';

const closeOffThread = promisify(fs.close);

/** An open file. Closing again is the same closing: its number may be another file's by then. */
export interface Descriptor extends AsyncDisposable {
  readonly fd: number;
}

/**
 * Opens a file. Done at once, as everything small that is asked of names and open files: a hop to the thread pool takes longer than the call,
 * and `node:fs/promises`, which would make it, milliseconds of every start. One that was open for writing is closed off the main thread: on a
 * network file system that writes what is left.
 */
export function openFile(path: string, flags: number, mode?: number): Promise<Descriptor> {
  return calling(path, 'open', async () => {
    const fd = fs.openSync(path, flags, mode);
    const written = (flags & fs.constants.O_RDWR) !== 0;
    const close = written ? () => closeOffThread(fd) : async () => fs.closeSync(fd);
    let closing: Promise<void> | null = null;
    return {
      fd,
      [Symbol.asyncDispose]: () => {
        closing ??= calling(path, 'close', close);
        return closing;
      },
    };
  });
}
