import type { Image, ImageFormat, ImageMark } from '@downfold/image';
import type { OpenMode, StorageBackend } from '@downfold/storage';
import { dataFileFacts, dataFileOpener } from './data-file.ts';
import { ChainError } from './errors.ts';
import type { LayerFacts } from './layer.ts';
import { readMark } from './marks.ts';
import type { ChainEnvironment, Formats } from './policy.ts';

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
  let opened: AsyncDisposable = storage;
  try {
    const openDataFile = dataFileOpener(path, storage, environment);
    const { limits, allowLocked } = policy;
    // who may do without the data is not made to find a key, which takes seconds
    const secret = allowLocked ? null : policy.secretOf(path);
    const options = { mode, limits, signal, openDataFile, secret, allowLocked };
    const image = await format.open(storage, options);
    opened = image;
    const mark = policy.allowMarked ? null : await readMark(image, backend);
    if (mark === null || (mark.state === 'mixed' && place === 'below')) return image;
    throw refusal(path, mark);
  } catch (cause) {
    await opened[Symbol.asyncDispose]();
    throw cause;
  }
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
  const dataFile = await dataFileFacts(image, backend);
  return {
    node,
    path,
    format: image.format,
    identity: image.file.identity,
    ...(dataFile === null ? {} : { dataFile }),
    geometry: image.geometry,
    backing: image.backing,
    mark: await readMark(image, backend),
    fingerprint: image.fingerprint,
    fileLength: await image.file.length(),
    allocated: facts.allocated,
    modified: facts.modified,
  };
}
