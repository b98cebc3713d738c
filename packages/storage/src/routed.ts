import type { BackendDriver } from './backend.ts';

const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;

/** Whether a path is a URL: what it names lies behind a server, and beside it there is nothing. */
export function isUrl(path: string): boolean {
  return SCHEME.test(path);
}

/** Makes a backend when it is first used. It is asked for each call, and gives the same one. */
export type BackendLoader = () => BackendDriver | Promise<BackendDriver>;

/**
 * `files`, and URLs by their schemes: each goes to the backend of its scheme (`nbd+unix`, `https`, …; in lower case).
 * One of another scheme is a path to `files`, which has no such file.
 */
export function routed(
  files: BackendDriver,
  schemes: Readonly<Record<string, BackendLoader>>,
): BackendDriver {
  const at = async (path: string): Promise<BackendDriver> => {
    const scheme = SCHEME.exec(path)?.[1]?.toLowerCase();
    const load = scheme === undefined ? undefined : schemes[scheme];
    return load === undefined ? files : await load();
  };
  return {
    name: files.name,
    open: async (path, mode) => (await at(path)).open(path, mode),
    create: async (path, options) => (await at(path)).create(path, options),
    remove: async (path) => (await at(path)).remove(path),
    rename: async (from, to) => (await at(from)).rename(from, to),
    flushDirectory: async (path, barrier) => (await at(path)).flushDirectory(path, barrier),
    facts: async (path) => (await at(path)).facts(path),
    sharesBlocks: async (from, to) => {
      const one = await at(from);
      return one === (await at(to)) && one.sharesBlocks(from, to);
    },
    list: async (directory) => (await at(directory)).list(directory),
    realPath: async (path) => (await at(path)).realPath(path),
    lock: async (path, request) => (await at(path)).lock(path, request),
  };
}
