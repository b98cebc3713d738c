import {
  type ChainEnvironment,
  type ChainPolicy,
  defaultPolicy,
  lockImage,
  type OpenChain,
  openChain,
  openImageAt,
  resolveBacking,
} from '@downfold/chain';
import { type Image, ImageError, type ImageFormat } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import {
  isUrl,
  openBackend,
  READER,
  routed,
  type Storage,
  type StorageBackend,
  WRITER,
} from '@downfold/storage';
import { fileBackendDriver } from '@downfold/storage-file';
import { UsageError } from './failure.ts';
import { absolute, directoryOf } from './paths.ts';

/** Loaded by the first URL: most commands have none. */
const nbd = once(async () => (await import('@downfold/storage-nbd')).nbdBackendDriver());
const http = once(async () => (await import('@downfold/storage-http')).httpBackendDriver());

/** The backend of the command line: files of this machine, and what the user names behind servers. */
export const backend: StorageBackend = openBackend(
  routed(fileBackendDriver(), { nbd, 'nbd+unix': nbd, http, https: http }),
);

function once<T>(load: () => Promise<T>): () => Promise<T> {
  let loaded: Promise<T> | null = null;
  return () => {
    loaded ??= load();
    return loaded;
  };
}

/** The formats of the command line. */
export const formats: readonly ImageFormat[] = [qcow2, raw];

/** The format of `-f NAME`. @throws UsageError for a name that is not there. */
export function formatOf(name: string): ImageFormat {
  const format = formats.find((one) => one.name === name);
  if (format !== undefined) return format;
  throw new UsageError(
    `Unknown image format '${name}'; known are ${formats.map((one) => one.name).join(', ')}`,
  );
}

/** `--lock`: as it is safe; also where locks may exclude nobody; not at all. */
type Locking = 'auto' | 'ofd' | 'none';

const LOCKS: Readonly<Record<Locking, ChainPolicy['locks']>> = {
  auto: 'local',
  ofd: 'everywhere',
  none: 'none',
};

/** What a command lets a chain open. */
export interface Access {
  /** Directories, as the user named them, that backing files may lie in besides the image's own; and URLs that images may name. */
  readonly allow?: readonly string[] | undefined;
  /** Also images that are marked invalid or superseded. */
  readonly forceInvalid?: boolean | undefined;
  /** Reads what others may be writing. */
  readonly forceShare?: boolean | undefined;
  /** Of jobs, which write. */
  readonly lock?: Locking | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The surroundings in which the chain of `file` is opened. */
export function environmentFor(file: string, access: Access): ChainEnvironment {
  return { backend, formats, policy: policyFor([file], access), signal: access.signal };
}

/** The safe default, opened up by what the user said. */
export function policyFor(files: readonly string[], access: Access): ChainPolicy {
  const allow = access.allow ?? [];
  return {
    ...defaultPolicy,
    roots:
      allow.length === 0
        ? null
        : [
            ...files.filter((file) => !isUrl(file)).map(directoryOf),
            ...allow.map((directory) => absolute(directory)),
          ],
    allowMarked: access.forceInvalid ?? false,
    locks: locksFor(access),
  };
}

/** With a base that the user named: when it is a URL, images may name it too. */
export function naming<Options extends Access>(
  options: Options,
  base: string | undefined,
): Options {
  if (base === undefined || !isUrl(base)) return options;
  return { ...options, allow: [...(options.allow ?? []), base] };
}

/** Who only reads does no harm where locks are doubtful. */
function locksFor({ forceShare, lock }: Access): ChainPolicy['locks'] {
  if (lock !== undefined) return LOCKS[lock];
  return forceShare === true ? 'none' : 'everywhere';
}

/** Opens the file of one image for writing, locked against everybody else; marked ones too. To be closed as a whole. */
export async function openFileToWrite(
  file: string,
  access: Access,
): Promise<AsyncDisposable & { readonly storage: Storage }> {
  const path = await backend.realPath(absolute(file));
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, WRITER, environmentFor(file, access)));
  const storage = opened.use(await backend.open(path, 'write'));
  const all = opened.move();
  return { storage, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Opens one image read-only and nothing below it, locked as `access` says; marked ones too. To be closed as a whole. */
export async function openAlone(
  file: string,
  formatName: string,
  access: Access,
): Promise<AsyncDisposable & { readonly image: Image }> {
  const format = formatOf(formatName);
  const path = absolute(file);
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, READER, environmentFor(file, access)));
  const storage = opened.use(await backend.open(path, 'read'));
  const image = opened.use(await format.open(storage, { mode: 'read' }));
  const all = opened.move();
  return { image, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/**
 * Opens one image for writing, locked against everybody else; a marked one is refused, and one that the check finds corrupt. To be closed
 * as a whole.
 */
export async function openForWriting(
  file: string,
  formatName: string,
  access: Access,
): Promise<AsyncDisposable & { readonly image: Image }> {
  const environment = environmentFor(file, access);
  const path = await backend.realPath(absolute(file));
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, WRITER, environment));
  const image = opened.use(
    await openImageAt(path, formatOf(formatName).name, 'write', environment),
  );
  const { corruptions } = await image.check();
  if (corruptions > 0)
    throw new ImageError('IMAGE_NEEDS_REPAIR', `${path}: is corrupt (${corruptions} errors)`, {
      image: path,
    });
  const all = opened.move();
  return { image, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** Opens the chain that lies below an open image, for reading; null: nothing does. */
export async function openBelow(image: Image, access: Access): Promise<OpenChain | null> {
  if (image.backing === null) return null;
  const environment = environmentFor(image.label, access);
  const named = environment.policy.roots ?? [directoryOf(image.label)];
  const roots = await Promise.all(named.map((root) => backend.realPath(root)));
  const { path, format } = await resolveBacking(image.backing, image.label, roots, backend);
  return await openChain(path, format, {
    ...environment,
    policy: { ...environment.policy, roots },
  });
}
