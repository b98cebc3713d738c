import { posix } from 'node:path';

/**
 * The path of a name, from an absolute directory in which no part is a link. Where `..` comes after another part it stays as it is, for the system to
 * follow: that part may be a link, and `..` leads from where that leads.
 */
export function pathFrom(directory: string, name: string): string {
  if (!climbsInside(name)) return posix.resolve(directory, name);
  return posix.isAbsolute(name) ? name : `${directory}/${name}`;
}

/** Whether `..` comes after a part that it takes back as text. */
function climbsInside(name: string): boolean {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.');
  const first = posix.isAbsolute(name) ? 0 : parts.findIndex((part) => part !== '..');
  return first >= 0 && parts.includes('..', first);
}
