import fs from 'node:fs';
import { posix } from 'node:path';
import { pathFrom } from '@downfold/storage';

/**
 * The absolute path of a name that a user gives, as the system follows it: `..` after a link leads from where that leads. The last part need not be there.
 */
export function absolutePath(name: string): string {
  const path = pathFrom(process.cwd(), name);
  const at = path.lastIndexOf('/');
  const [directory, last] = [path.slice(0, at), path.slice(at + 1)];
  if (!`${directory}/`.includes('/../') && last !== '..') return path;
  // the other one goes by the text
  const real = fs.realpathSync.native;
  try {
    return isStep(last) ? real(path) : posix.join(real(directory), last);
  } catch (cause) {
    // whoever opens it says so
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return path;
    throw cause;
  }
}

function isStep(part: string): boolean {
  return part === '' || part === '.' || part === '..';
}
