import {
  type ChainEnvironment,
  type ChainPolicy,
  dataFileOpener,
  defaultPolicy,
  lockImage,
  type OpenChain,
  openChain,
  openImageAt,
  resolveBacking,
  rootsFor,
  viewOf,
} from '@downfold/chain';
import { type GivenSecret, secretFor } from '@downfold/host';
import {
  type CowSource,
  type Image,
  ImageError,
  type ImageFormat,
  type OpenImageOptions,
} from '@downfold/image';
import { luks } from '@downfold/luks-image';
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
import { byteLength } from '@downfold/units';
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
export const formats: readonly ImageFormat[] = [qcow2, raw, luks];

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
  /** External data files too. */
  readonly allowDataFile?: boolean | undefined;
  /** Also images that are marked invalid or superseded. */
  readonly forceInvalid?: boolean | undefined;
  /** Reads what others may be writing. */
  readonly forceShare?: boolean | undefined;
  /** Of jobs, which write. */
  readonly lock?: Locking | undefined;
  /** Of encrypted images. */
  readonly secret?: readonly GivenSecret[] | undefined;
  /** Opens encrypted images without a secret: nothing but metadata is looked at. */
  readonly allowLocked?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The surroundings in which the chain of `file` is opened. */
export function environmentFor(file: string, access: Access): ChainEnvironment {
  return { backend, formats, policy: policyFor([file], access), signal: access.signal };
}

/** Disks as large as QEMU has them, nearly: numbers stay exact, and memory is that of the metadata, which has its own limit. */
export const IMAGE_LIMITS: ChainPolicy['limits'] = { virtualSize: byteLength(2 ** 52) };

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
    allowDataFile: access.allowDataFile ?? false,
    limits: IMAGE_LIMITS,
    locks: locksFor(access),
    secretOf: (path) => secretFor(path, access.secret),
    allowLocked: access.allowLocked ?? false,
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

/**
 * Opens the file of one image for writing, locked against everybody else; marked ones too, but none with a staging of an interrupted job. To be closed as a
 * whole.
 */
export async function openFileToWrite(file: string, access: Access): Promise<OpenFile> {
  const environment = environmentFor(file, access);
  const path = await backend.realPath(absolute(file));
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, WRITER, environment));
  await assertNoStaging(path);
  const storage = opened.use(await backend.open(path, 'write'));
  const openDataFile = dataFileOpener(path, storage, environment);
  const all = opened.move();
  return { storage, openDataFile, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** The file of an image, and how the data file is opened that it may name. */
interface OpenFile extends AsyncDisposable, Pick<OpenImageOptions, 'openDataFile'> {
  readonly storage: Storage;
}

/**
 * Opens one image read-only and nothing below it, locked as `access` says; marked ones too, and the metadata of encrypted ones, whoever has
 * their secret. `describes`: only what it says of itself is asked for, and an external data file is not opened. To be closed as a whole.
 */
export async function openAlone(
  file: string,
  formatName: string,
  access: Access,
  { describes = false }: { readonly describes?: boolean } = {},
): Promise<AsyncDisposable & { readonly image: Image }> {
  const format = formatOf(formatName);
  const path = await backend.realPath(absolute(file));
  const own = { ...access, forceInvalid: true, allowLocked: true };
  const environment = environmentFor(file, own);
  const policy = describes ? unreadPolicy(environment.policy) : environment.policy;
  await using opened = new AsyncDisposableStack();
  opened.use(await lockImage(path, READER, environment));
  const image = opened.use(
    await openImageAt(path, format.name, 'read', { ...environment, policy }),
  );
  const all = opened.move();
  return { image, [Symbol.asyncDispose]: () => all.disposeAsync() };
}

/** For who asks images only what they say of themselves: nobody has to allow their data files, and none is opened. */
export function unreadPolicy(policy: ChainPolicy): ChainPolicy {
  return { ...policy, allowDataFile: 'unread' };
}

/**
 * Refuses an image whose interrupted job could then neither go on nor be given up: it knows the image as it was.
 * @throws CommitError `COMMIT_INTERRUPTED_BEFORE`
 */
export async function assertNoJournal(path: string): Promise<void> {
  if (isUrl(path)) return;
  // most commands have no journal
  const commit = await import('@downfold/commit');
  await commit.assertNoJournal(backend, path);
}

/**
 * Refuses an image that holds what an interrupted job wrote aside. One of which a job only has a journal may be repaired: the job may wait for just
 * that. @throws CommitError `COMMIT_INTERRUPTED_BEFORE`
 */
export async function assertNoStaging(path: string): Promise<void> {
  if (isUrl(path)) return;
  const commit = await import('@downfold/commit');
  await commit.assertNoStaging(backend, path);
}

/**
 * Opens one image for writing, locked against everybody else; a marked one is refused, one of an interrupted job, and one that the check finds
 * corrupt. To be closed as a whole.
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
  await assertNoJournal(path);
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
  const roots = await rootsFor(image.label, environment);
  const { path, format } = await resolveBacking(image.backing, image.label, roots, backend);
  return await openChain(path, format, {
    ...environment,
    policy: { ...environment.policy, roots },
  });
}

/** What a chain shows, for images on top of it; null: nothing lies below. */
export function shownBy(below: OpenChain | null): CowSource | null {
  return below === null ? null : viewOf(below.layers, below.layers.length - 1);
}
