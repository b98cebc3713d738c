import { ImageError, type ImageErrorCode } from '@downfold/image';
import { ServerError } from '../errors.ts';

/** What QEMU says of secrets, and what to do. */
const SAID: Partial<Readonly<Record<ImageErrorCode, string>>> = {
  IMAGE_SECRET_NEEDED:
    "Parameter 'encrypt.key-secret' is required for cipher ('key-secret' of a luks image): the image is encrypted; name a secret that --object or object-add made, or say --secret IMAGE=FILE",
  IMAGE_WRONG_SECRET: 'Invalid password, cannot unlock any keyslot',
};

/** Refusals of an image in words that clients of QEMU know, and with what to do here. @throws ServerError, or else `cause` */
export function inWordsOfServer(cause: unknown): never {
  if (!(cause instanceof ImageError)) throw cause;
  const image = String(cause.details['image']);
  const said = SAID[cause.code];
  if (said !== undefined)
    throw new ServerError('SERVER_SECRET', `${image}: ${said}`, { image }, cause);
  if (cause.details['feature'] === 'external data file')
    throw new ServerError(
      'SERVER_DATA_FILE',
      `${cause.message}; --allow-data-file allows it`,
      { image },
      cause,
    );
  throw cause;
}
