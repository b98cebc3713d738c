import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { type ImageSecret, imageSecret } from '@downfold/image';
import { isUrl } from '@downfold/storage';
import { absolutePath } from './absolute-path.ts';
import { HostError } from './errors.ts';

/** A secret, and the image that it is of; null: of any that has none of its own. */
export interface GivenSecret {
  /** Absolute. */
  readonly image: string | null;
  readonly secret: ImageSecret;
}

/** What `--secret` says: `FILE`, or `IMAGE=FILE`. @throws HostError `HOST_SECRET` */
export function secretGiven(value: string): GivenSecret {
  const at = value.lastIndexOf('=');
  const image = at < 0 ? null : absolute(value.slice(0, at));
  return { image, secret: secretIn(value.slice(at + 1)) };
}

/** The secret of the image at a path, links resolved: its own, or else that of any. */
export function secretFor(path: string, given: readonly GivenSecret[] = []): ImageSecret | null {
  const own = given.find(({ image }) => image !== null && resolved(image) === resolved(path));
  return (own ?? given.find(({ image }) => image === null))?.secret ?? null;
}

/**
 * The secret that a file holds: all its bytes, as in QEMU: also a line end. `format`: as QEMU's secrets have it.
 * @throws HostError `HOST_SECRET`
 */
export function secretIn(file: string, format = 'raw'): ImageSecret {
  try {
    return secretOf(readFileSync(file), format);
  } catch (cause) {
    if (cause instanceof HostError) throw cause;
    throw unusable(`The secret cannot be read: ${(cause as Error).message}`, cause);
  }
}

/** The secret that bytes are. @throws HostError `HOST_SECRET` */
export function secretOf(bytes: Uint8Array, format: string): ImageSecret {
  if (format === 'raw') return imageSecret(bytes);
  if (format !== 'base64') throw unusable(`secret: format=${format}: it can be raw or base64`);
  const text = new TextDecoder('latin1').decode(bytes);
  // Node skips what is none, and a key file given by mistake would become a short passphrase
  if (!/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(text))
    throw unusable('secret: format=base64, and what it holds is none');
  return imageSecret(Buffer.from(text, 'base64'));
}

/** The refusal of a secret that stands in an argument. */
export function secretInArgument(): HostError {
  return unusable(
    '--object secret: data= would show the secret to everybody on this machine; write it to a file: file=FILE',
  );
}

function unusable(message: string, cause?: unknown): HostError {
  return new HostError('HOST_SECRET', message, {}, cause);
}

function absolute(path: string): string {
  return isUrl(path) ? path : absolutePath(path);
}

function resolved(path: string): string {
  // a URL, or what is not there yet, has no other name
  return existsSync(path) ? realpathSync(path) : path;
}
