import { posix } from 'node:path';
import { isUrl } from '@downfold/storage';
import { namesProtocol, withoutFilePrefix } from './file-name.ts';

/**
 * The name by which the image at `from` shall refer to the one at `to` (absolute paths, links resolved): relative when `previous` was
 * relative, else absolute. Never one that a resolver takes for a protocol.
 */
export function backingName(from: string, to: string, previous: string): string {
  // a server has one name wherever it is used from
  if (isUrl(to)) return to;
  if (posix.isAbsolute(withoutFilePrefix(previous))) return to;
  const name = posix.relative(posix.dirname(from), to);
  return namesProtocol(name) ? `./${name}` : name;
}
