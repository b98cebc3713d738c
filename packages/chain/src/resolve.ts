import { posix } from 'node:path';
import type { BackingReference, Image, ImageFormat, ImageMark } from '@downfold/image';
import {
  isUrl,
  type OpenMode,
  type Storage,
  type StorageBackend,
  StorageError,
} from '@downfold/storage';
import { ChainError } from './errors.ts';
import type { LayerFacts } from './layer.ts';
import { readMark } from './marks.ts';
import type { ChainPolicy, Formats } from './policy.ts';

/** What opening images needs; passed in by whoever assembles. */
export interface ChainEnvironment {
  readonly backend: StorageBackend;
  readonly formats: Formats;
  readonly policy: ChainPolicy;
  readonly signal?: AbortSignal | undefined;
}

/** A backing file that may be opened: where it is and what it claims to be. */
export interface ResolvedBacking {
  /** Absolute, links resolved. */
  readonly path: string;
  readonly format: string;
}

/**
 * Turns a reference found inside an image into a file that may be opened. Nothing is opened.
 * @param overlay absolute path of the image that holds the reference, links resolved
 * @param roots absolute directories, links resolved
 * @throws ChainError when the policy refuses it or the file is missing
 */
export async function resolveBacking(
  reference: BackingReference,
  overlay: string,
  roots: readonly string[],
  backend: StorageBackend,
): Promise<ResolvedBacking> {
  const name = plainName(reference.name, overlay, 'backing file', roots);
  if (reference.format === null) throw noFormat(name, overlay);
  const { path, refused } = await locate(name, overlay, 'backing file', roots, backend);
  if (refused !== null) throw refused;
  return { path, format: reference.format };
}

/** Where a file is, and why it may not be opened; null: it may. */
interface Located {
  readonly path: string;
  readonly refused: ChainError | null;
}

/**
 * As `resolveBacking`, but only where the file is: enough to know who depends on whom, whatever its format. A file outside the roots is
 * located too, and refused.
 */
export async function locateBacking(
  reference: BackingReference,
  overlay: string,
  roots: readonly string[],
  backend: StorageBackend,
): Promise<Located> {
  const name = plainName(reference.name, overlay, 'backing file', roots);
  return await locate(name, overlay, 'backing file', roots, backend);
}

/** What is wrong with a reference that has no format. The message names the fix. */
export function noFormat(name: string, overlay: string): ChainError {
  return new ChainError(
    'CHAIN_NO_FORMAT',
    `${overlay}: backing file '${name}' has no format, and guessing it is unsafe; say it: qemu-img rebase -u -F FORMAT -b '${name}' '${overlay}'`,
    { image: overlay, name },
  );
}

/** What a name found inside an image is of. */
type Named = 'backing file' | 'data file';

/** The only code that turns a name found inside an image into a path. */
async function locate(
  name: string,
  overlay: string,
  what: Named,
  roots: readonly string[],
  backend: StorageBackend,
): Promise<Located> {
  if (isUrl(name)) return { path: name, refused: null };
  const wanted = posix.resolve(posix.dirname(overlay), name);
  const path = await backend.realPath(wanted).catch((cause: unknown) => {
    if (cause instanceof StorageError && cause.code === 'STORAGE_NOT_FOUND')
      throw new ChainError(
        'CHAIN_MISSING',
        `${overlay}: ${what} '${name}' is not there (${wanted})`,
        { image: overlay, name, path: wanted },
        cause,
      );
    throw cause;
  });
  if (roots.some((root) => isInside(path, root))) return { path, refused: null };
  const refused = new ChainError(
    'CHAIN_OUTSIDE_ROOTS',
    `${overlay}: ${what} '${name}' lies outside the allowed directories (${path}); allow its directory if you trust it`,
    { image: overlay, name, path },
  );
  return { path, refused };
}

/** The name as a path: `file:` stripped, protocols, `json:` and control characters refused; of `urls`, which the user named, each is one too. */
function plainName(
  stored: string,
  overlay: string,
  what: Named,
  urls: readonly string[] = [],
): string {
  if (isUrl(stored) && urls.includes(stored)) return stored;
  const name = stored.startsWith('file:') ? stored.slice('file:'.length) : stored;
  const refuse = (problem: string): never => {
    throw new ChainError('CHAIN_FORBIDDEN_NAME', `${overlay}: ${what} name ${problem}`, {
      image: overlay,
      name: JSON.stringify(stored),
    });
  };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) refuse('has control characters');
  const slash = name.indexOf('/');
  const colon = name.indexOf(':');
  if (colon >= 0 && (slash < 0 || colon < slash))
    refuse(`'${name.slice(0, 40)}' names a protocol; only plain files are opened`);
  if (name === '') refuse('is empty');
  // there is no directory that it could be looked for in
  if (isUrl(overlay)) refuse(`'${name.slice(0, 40)}' is one of a server's: say which image it is`);
  return name;
}

function isInside(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith('/') ? root : `${root}/`);
}

/** The format of a name among those passed in. @throws ChainError `CHAIN_UNKNOWN_FORMAT`. */
function formatNamed(name: string, formats: Formats, image: string): ImageFormat {
  const format = formats.find((one) => one.name === name);
  if (format !== undefined) return format;
  throw new ChainError(
    'CHAIN_UNKNOWN_FORMAT',
    `${image}: format '${name}' is not known here; known are ${formats.map((one) => one.name).join(', ')}`,
    { image, format: name },
  );
}

/** Where an image stands: read as a disk of its own, or below others. */
export type Place = 'leaf' | 'below';

/** Opens one image at a real path; refuses a marked one unless the policy allows it. */
export async function openImageAt(
  path: string,
  formatName: string,
  mode: OpenMode,
  environment: ChainEnvironment,
  place: Place = 'leaf',
): Promise<Image> {
  const { backend, formats, policy, signal } = environment;
  const format = formatNamed(formatName, formats, path);
  const storage = await backend.open(path, mode);
  try {
    const openDataFile = policy.allowDataFile
      ? (name: string): Promise<Storage> => openDataFileOf(path, storage, name, mode, environment)
      : undefined;
    const image = await format.open(storage, { mode, limits: policy.limits, signal, openDataFile });
    const mark = policy.allowMarked ? null : await readMark(image, backend);
    if (mark === null || (mark.state === 'mixed' && place === 'below')) return image;
    throw refusal(path, mark);
  } catch (cause) {
    await storage[Symbol.asyncDispose]();
    throw cause;
  }
}

/** Opens the data file that the image at `path` names: where its backing file could be, and another file than the image. */
async function openDataFileOf(
  path: string,
  image: Storage,
  stored: string,
  mode: OpenMode,
  environment: ChainEnvironment,
): Promise<Storage> {
  const { backend } = environment;
  const name = plainName(stored, path, 'data file');
  const roots = await rootsFor(path, environment);
  const located = await locate(name, path, 'data file', roots, backend);
  if (located.refused !== null) throw located.refused;
  const storage = await backend.open(located.path, mode);
  const { device, inode } = storage.identity;
  if (device !== image.identity.device || inode !== image.identity.inode) return storage;
  await storage[Symbol.asyncDispose]();
  throw new ChainError('CHAIN_LOOP', `${path}: is its own data file`, { image: path, name });
}

/** The policy's roots with links resolved; without any, the directory of the image the user named. */
export async function rootsFor(
  leaf: string,
  environment: ChainEnvironment,
): Promise<readonly string[]> {
  const { policy, backend } = environment;
  const own = isUrl(leaf) ? [] : [posix.dirname(leaf)];
  return Promise.all((policy.roots ?? own).map((root) => backend.realPath(root)));
}

function refusal(path: string, { state, date, job }: ImageMark): ChainError {
  return new ChainError(
    'CHAIN_INVALID_IMAGE',
    `${path}: is marked ${state} since ${date} by job ${job}: it no longer represents any point in time`,
    { image: path, state, job },
  );
}

/** What is to be remembered of an open image. */
export async function factsOf(
  node: string,
  path: string,
  image: Image,
  backend: StorageBackend,
): Promise<LayerFacts> {
  const facts = await backend.facts(path);
  return {
    node,
    path,
    format: image.format,
    identity: image.file.identity,
    geometry: image.geometry,
    backing: image.backing,
    mark: await readMark(image, backend),
    fingerprint: image.fingerprint,
    fileLength: await image.file.length(),
    allocated: facts.allocated,
    modified: facts.modified,
  };
}
