import { posix } from 'node:path';
import type { BackingReference } from '@downfold/image';
import { isUrl, pathFrom, type StorageBackend, StorageError } from '@downfold/storage';
import { ChainError } from './errors.ts';
import { namesProtocol, withoutFilePrefix } from './file-name.ts';
import type { ChainEnvironment } from './policy.ts';

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

/** Where a file is, by what name, its links unresolved, and why it may not be opened; null: it may. */
interface Located {
  readonly path: string;
  readonly named: string;
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

/** Where the data file is that the image at `overlay` names. @throws ChainError when the policy refuses it or it is missing */
export async function resolveDataFile(
  stored: string,
  overlay: string,
  roots: readonly string[],
  backend: StorageBackend,
): Promise<string> {
  const name = plainName(stored, overlay, 'data file');
  const { path, refused } = await locate(name, overlay, 'data file', roots, backend);
  if (refused !== null) throw refused;
  return path;
}

/** The only code that turns a name found inside an image into a path. */
async function locate(
  name: string,
  overlay: string,
  what: Named,
  roots: readonly string[],
  backend: StorageBackend,
): Promise<Located> {
  if (isUrl(name)) return { path: name, named: name, refused: null };
  const wanted = pathFrom(posix.dirname(overlay), name);
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
  if (roots.some((root) => isInside(path, root))) return { path, named: wanted, refused: null };
  const refused = new ChainError(
    'CHAIN_OUTSIDE_ROOTS',
    `${overlay}: ${what} '${name}' lies outside the allowed directories (${path}); allow its directory if you trust it`,
    { image: overlay, name, path },
  );
  return { path, named: wanted, refused };
}

/** The name as a path: `file:` stripped, protocols, `json:` and control characters refused; of `urls`, which the user named, each is one too. */
function plainName(
  stored: string,
  overlay: string,
  what: Named,
  urls: readonly string[] = [],
): string {
  if (isUrl(stored) && urls.includes(stored)) return stored;
  const name = withoutFilePrefix(stored);
  const refuse = (problem: string): never => {
    throw new ChainError('CHAIN_FORBIDDEN_NAME', `${overlay}: ${what} name ${problem}`, {
      image: overlay,
      name: JSON.stringify(stored),
    });
  };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\u0000-\u001f\u007f]/.test(name)) refuse('has control characters');
  if (namesProtocol(name))
    refuse(`'${name.slice(0, 40)}' names a protocol; only plain files are opened`);
  if (name === '') refuse('is empty');
  // there is no directory that it could be looked for in
  if (isUrl(overlay)) refuse(`'${name.slice(0, 40)}' is one of a server's: say which image it is`);
  return name;
}

function isInside(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith('/') ? root : `${root}/`);
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
