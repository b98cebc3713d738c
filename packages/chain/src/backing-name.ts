import { posix } from 'node:path';
import { isUrl } from '@downfold/storage';

/**
 * The name by which the image at `from` shall refer to the one at `to` (absolute paths, links resolved): relative when `previous` was
 * relative, else absolute. Never one that a resolver takes for a protocol.
 */
export function backingName(from: string, to: string, previous: string): string {
  // a server has one name wherever it is used from
  if (isUrl(to)) return to;
  const plain = previous.startsWith('file:') ? previous.slice('file:'.length) : previous;
  if (posix.isAbsolute(plain)) return to;
  const name = posix.relative(posix.dirname(from), to);
  const first = name.split('/', 1)[0] ?? '';
  return first.includes(':') ? `./${name}` : name;
}
