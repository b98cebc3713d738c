import { dirname } from 'node:path';
import {
  type ChainEnvironment,
  type ChainPolicy,
  type DataFileLocks,
  defaultPolicy,
} from '@downfold/chain';
import { createEngine, type Engine } from '@downfold/commit';
import { absolutePath, clock, isAlive, newJobId, thisProcess } from '@downfold/host';
import type { ImageFormat, ImageSecret } from '@downfold/image';
import { luks } from '@downfold/luks-image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import {
  type BackendDriver,
  isUrl,
  openBackend,
  routed,
  type StorageBackend,
} from '@downfold/storage';
import { fileBackendDriver } from '@downfold/storage-file';
import { httpBackendDriver } from '@downfold/storage-http';
import { nbdBackendDriver } from '@downfold/storage-nbd';
import { active, auto, copyDown, depthFirst, preserve, staged, stream } from '@downfold/strategies';
import type { ImageSecrets } from './graph/image-secrets.ts';

const [nbdDriver, httpDriver] = [nbdBackendDriver(), httpBackendDriver()];
const nbd = (): BackendDriver => nbdDriver;
const http = (): BackendDriver => httpDriver;

/** Files of this machine, and what servers hold: NBD exports, and files behind HTTP for reading. */
export const backend: StorageBackend = openBackend(
  routed(fileBackendDriver(), { nbd, 'nbd+unix': nbd, http, https: http }),
);

/** What can be served. */
const formats: readonly ImageFormat[] = [qcow2, raw, luks];

/** What `auto` chooses from; of equals the first. */
const COMMITTING = [copyDown, depthFirst, staged, preserve] as const;

const LOCKS: Readonly<Record<string, ChainPolicy['locks']>> = {
  auto: 'local',
  ofd: 'everywhere',
  none: 'none',
};

/** What the user allows. */
export interface Allowed {
  /** Directories that backing files may lie in besides the image's own. */
  readonly allow: readonly string[];
  readonly lock: 'auto' | 'ofd' | 'none';
  /** External data files too. */
  readonly allowDataFile: boolean;
}

/** The same, and what all have in common that the server opens. */
export interface Access extends Allowed {
  readonly secrets: ImageSecrets;
  readonly dataFileLocks: DataFileLocks;
}

/** The surroundings in which the chain of `file` is opened: the safe default, opened up by what the user said. */
export function environmentFor(file: string, access: Access): ChainEnvironment {
  const { allow, lock, allowDataFile, secrets, dataFileLocks } = access;
  const roots =
    allow.length === 0
      ? null
      : [...(isUrl(file) ? [] : [dirname(absolutePath(file))]), ...allow.map(absolutePath)];
  const locks = LOCKS[lock] ?? 'local';
  const secretOf = (path: string): ImageSecret | null => secrets.of(path);
  const policy: ChainPolicy = { ...defaultPolicy, roots, locks, allowDataFile, secretOf };
  return { backend, formats, policy, dataFileLocks };
}

/** The engine for jobs on the chain of `file`. */
export function engineFor(file: string, access: Access): Engine {
  return createEngine({
    ...environmentFor(file, access),
    strategies: [...COMMITTING, auto(COMMITTING), active, stream],
    owner: thisProcess(),
    isAlive,
    newJobId,
    clock,
  });
}
