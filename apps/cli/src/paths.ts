import { existsSync, lstatSync, realpathSync, statSync } from 'node:fs';
import { posix } from 'node:path';
import { namesProtocol, type OpenChain, withoutFilePrefix } from '@downfold/chain';
import { absolutePath } from '@downfold/host';
import { isUrl, isUtf8 } from '@downfold/storage';
import { UsageError } from './failure.ts';

/**
 * The path from the root on; a URL as it is. `file:` says that it is a file.
 * @throws UsageError for what qemu-img takes for a protocol, unless a file is called so: a copy that went into a new file of such a name would
 * be missed elsewhere
 */
export function absolute(path: string): string {
  if (isUrl(path)) return path;
  const plain = withoutFilePrefix(path);
  const found = absolutePath(plain);
  // that of the working directory: arguments were looked at
  if (!isUtf8(found))
    throw new UsageError(`'${found}': names must be UTF-8, that of the directory too`);
  assertNoDirectoryMeant(plain, found);
  if (plain !== path || !namesProtocol(path) || existsSync(found)) return found;
  throw new UsageError(
    `'${path}': '${path.slice(0, path.indexOf(':'))}' is no protocol that is known here: files, nbd://, nbd+unix://, http:// and https:// are; a file of that name is './${path}'`,
  );
}

/** A name that ends with a slash is one of a directory, to the system too. @throws UsageError when there is none */
function assertNoDirectoryMeant(said: string, path: string): void {
  if (!said.endsWith('/') || statSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
    return;
  throw new UsageError(`'${said}' names a directory, and there is none`);
}

/** Absolute directory of a file. */
export function directoryOf(file: string): string {
  return posix.dirname(absolute(file));
}

/** The path of a name that is relative to the directory of `file`; a URL as it is. */
export function absoluteFrom(file: string, name: string): string {
  if (isUrl(name)) return name;
  const plain = withoutFilePrefix(name);
  // not made shorter: the directory may be a link
  return absolutePath(posix.isAbsolute(plain) ? plain : `${directoryOf(file)}/${plain}`);
}

/** A path relative to a directory if it lies in there, else as it is. */
export function near(directory: string, path: string): string {
  if (isUrl(path)) return path;
  const name = posix.relative(directory, path);
  return name.startsWith('..') ? path : name;
}

/** A backing name as qemu-img shows it: relative to the directory of the overlay, as the overlay was named; of a link, to that of its file. */
export function besides(overlay: string, name: string): string {
  if (posix.isAbsolute(name) || namesProtocol(name)) return name;
  const place = isLink(overlay) ? realpathSync.native(overlay) : overlay;
  return place.includes('/') ? `${place.slice(0, place.lastIndexOf('/') + 1)}${name}` : name;
}

function isLink(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
}

/** How each layer is to be called, bottom first: the leaf as the user named it, others by their backing references. */
export function namesOf(chain: OpenChain, leaf: string): readonly string[] {
  const names: string[] = [leaf];
  for (const { image } of [...chain.layers].reverse())
    if (image.backing !== null) names.push(besides(names.at(-1) ?? leaf, image.backing.name));
  return names.reverse();
}
