import type { StorageBackend } from '@downfold/storage';
import { MemoryDisk, memoryBackend } from '@downfold/storage-memory';
import { expect } from 'vitest';
import { type ChainEnvironment, type ChainPolicy, defaultPolicy } from '../src/index.ts';
import { flatFormat, putToy, type ToyLayer, toyFormat } from './toy-format.ts';

/** A layer of four cells of 4 KiB, all data. */
export const plain: ToyLayer = { cells: 'dddd', cellSize: 4096, size: 16_384, fill: 1 };

/** A plain layer on a backing file; `format` null: the reference does not say. */
export function over(name: string, format: string | null = 'toy'): ToyLayer {
  return { ...plain, cells: 'duuu', backing: { name, format } };
}

/** What may be changed of an environment. */
export interface Surroundings {
  readonly policy?: Partial<ChainPolicy>;
  readonly backend?: StorageBackend;
}

/** The surroundings of chains on a memory disk. */
export function environmentOn(disk: MemoryDisk, other: Surroundings = {}): ChainEnvironment {
  return {
    backend: other.backend ?? memoryBackend(disk),
    formats: [toyFormat(), flatFormat],
    policy: { ...defaultPolicy, ...other.policy },
  };
}

/** A memory disk with these layers, by path. */
export async function diskOf(layers: Readonly<Record<string, ToyLayer>>): Promise<MemoryDisk> {
  const disk = new MemoryDisk();
  for (const [path, layer] of Object.entries(layers)) await putToy(disk, path, layer);
  return disk;
}

/** A backend on which names (files or directories) are links to others, as `realPath` and `list` see them. */
export function withLinks(
  disk: MemoryDisk,
  links: Readonly<Record<string, string>>,
): StorageBackend {
  const backend = memoryBackend(disk);
  const resolved = (path: string): string => {
    const link = Object.keys(links).find((one) => path === one || path.startsWith(`${one}/`));
    return link === undefined ? path : resolved(`${links[link]}${path.slice(link.length)}`);
  };
  const parentOf = (path: string): string => path.slice(0, path.lastIndexOf('/')) || '/';
  return {
    ...backend,
    realPath: (path) => backend.realPath(resolved(path)),
    facts: (path) => backend.facts(resolved(path)),
    open: (path, mode) => backend.open(resolved(path), mode),
    list: async (directory) => [
      ...(await backend.list(directory)),
      ...Object.keys(links)
        .filter((link) => parentOf(link) === directory)
        .map((link) => ({ name: link.slice(directory.length + 1), kind: 'link' as const })),
    ],
  };
}

/** A backend that counts files which are open. */
export function counting(backend: StorageBackend): { backend: StorageBackend; open: number } {
  const counter = {
    open: 0,
    backend: {
      ...backend,
      open: async (path: string, mode: 'read' | 'write') => {
        const storage = await backend.open(path, mode);
        counter.open++;
        return new Proxy(storage, {
          get: (target, key) => {
            if (key === Symbol.asyncDispose) counter.open--;
            const value = Reflect.get(target, key, target) as unknown;
            return typeof value === 'function' ? value.bind(target) : value;
          },
        });
      },
    },
  };
  return counter;
}

/** Expects a rejection with this code, and what its message must name. */
export async function expectRefusal(
  work: Promise<unknown>,
  code: string,
  ...said: readonly string[]
): Promise<void> {
  const error = await work.then(
    () => null,
    (cause: unknown) => cause as Error,
  );
  expect(error).toMatchObject({ code });
  for (const part of said) expect(error?.message).toContain(part);
}
