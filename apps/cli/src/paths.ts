import { posix } from 'node:path';
import type { OpenChain } from '@downfold/chain';
import { isUrl } from '@downfold/storage';

/** The path from the root on; a URL as it is. */
export function absolute(path: string): string {
  return isUrl(path) ? path : posix.resolve(path);
}

/** Absolute directory of a file. */
export function directoryOf(file: string): string {
  return posix.dirname(absolute(file));
}

/** A path relative to a directory if it lies in there, else as it is. */
export function near(directory: string, path: string): string {
  if (isUrl(path)) return path;
  const name = posix.relative(directory, path);
  return name.startsWith('..') ? path : name;
}

/** A backing name as qemu-img shows it: relative to the directory of the overlay, as the overlay was named. */
export function besides(overlay: string, name: string): string {
  if (posix.isAbsolute(name) || isUrl(name) || !overlay.includes('/')) return name;
  return `${overlay.slice(0, overlay.lastIndexOf('/') + 1)}${name}`;
}

/** How each layer is to be called, bottom first: the leaf as the user named it, others by their backing references. */
export function namesOf(chain: OpenChain, leaf: string): readonly string[] {
  const names: string[] = [leaf];
  for (const { image } of [...chain.layers].reverse())
    if (image.backing !== null) names.push(besides(names.at(-1) ?? leaf, image.backing.name));
  return names.reverse();
}
