import type { BackendDriver, StorageDriver } from '@downfold/storage';

/** A file of another backend under a local name. */
export interface Mount {
  /** Absolute path that leads to it. */
  readonly at: string;
  readonly backend: BackendDriver;
  /** Its path there. */
  readonly path: string;
}

/** `files` with mounts: so a caller, and nobody else, decides that a layer lies behind a server. */
export function mounted(files: BackendDriver, mounts: readonly Mount[]): BackendDriver {
  const mountAt = (path: string): Mount | undefined => mounts.find(({ at }) => at === path);
  return {
    ...files,
    open: async (path, mode) => {
      const mount = mountAt(path);
      if (mount === undefined) return await files.open(path, mode);
      return labelled(await mount.backend.open(mount.path, mode), path);
    },
    facts: (path) => {
      const mount = mountAt(path);
      return mount === undefined ? files.facts(path) : mount.backend.facts(mount.path);
    },
    realPath: async (path) => (mountAt(path) === undefined ? await files.realPath(path) : path),
    sharesBlocks: async (from, to) =>
      mountAt(from) === undefined &&
      mountAt(to) === undefined &&
      (await files.sharesBlocks(from, to)),
    lock: (path, request) => {
      const mount = mountAt(path);
      return mount === undefined
        ? files.lock(path, request)
        : mount.backend.lock(mount.path, request);
    },
  };
}

function labelled(file: StorageDriver, label: string): StorageDriver {
  return {
    label,
    writable: file.writable,
    supports: file.supports,
    identity: file.identity,
    descriptor: null,
    length: () => file.length(),
    read: (...of) => file.read(...of),
    runAt: (...of) => file.runAt(...of),
    write: (...of) => file.write(...of),
    writeZeroes: (...of) => file.writeZeroes(...of),
    copyFrom: (...of) => file.copyFrom(...of),
    discard: (...of) => file.discard(...of),
    setLength: (...of) => file.setLength(...of),
    flush: (...of) => file.flush(...of),
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  };
}
