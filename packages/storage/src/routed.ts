import type { BackendDriver } from './backend.ts';

const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;

/** Whether a path is a URL: what it names lies behind a server, and beside it there is nothing. */
export function isUrl(path: string): boolean {
  return SCHEME.test(path);
}

/**
 * `files`, and URLs by their schemes: each goes to the backend of its scheme (`nbd+unix`, `https`, …; in lower case).
 * One of another scheme is a path to `files`, which has no such file.
 */
export function routed(
  files: BackendDriver,
  schemes: Readonly<Record<string, BackendDriver>>,
): BackendDriver {
  const at = (path: string): BackendDriver => {
    const scheme = SCHEME.exec(path)?.[1]?.toLowerCase();
    return (scheme === undefined ? undefined : schemes[scheme]) ?? files;
  };
  return {
    name: files.name,
    open: (path, mode) => at(path).open(path, mode),
    create: (path, options) => at(path).create(path, options),
    remove: (path) => at(path).remove(path),
    rename: (from, to) => at(from).rename(from, to),
    flushDirectory: (path, barrier) => at(path).flushDirectory(path, barrier),
    facts: (path) => at(path).facts(path),
    list: (directory) => at(directory).list(directory),
    realPath: (path) => at(path).realPath(path),
    lock: (path, request) => at(path).lock(path, request),
  };
}
