import { ImageError, type ImageErrorCode } from '@downfold/image';
import { UnitsError } from '@downfold/units';

/** An ImageError that names the image, what is wrong in it and, where there is one, the byte. */
export function imageError(
  code: ImageErrorCode,
  label: string,
  problem: string,
  offset?: number,
  details: Readonly<Record<string, string | number>> = {},
  cause?: unknown,
): ImageError {
  const where = offset === undefined ? '' : ` (at byte ${offset})`;
  return new ImageError(
    code,
    `${label}: ${problem}${where}`,
    { image: label, ...(offset === undefined ? {} : { offset }), ...details },
    cause,
  );
}

/** Metadata that breaks the format's rules. */
export function corrupt(
  label: string,
  problem: string,
  offset?: number,
  cause?: unknown,
): ImageError {
  return imageError('IMAGE_CORRUPT', label, problem, offset, {}, cause);
}

/** What `decode` makes of a structure; a number in it that is beyond 2^53 is `IMAGE_CORRUPT`, with the image's name. */
export function decoding<T>(label: string, what: string, at: number, decode: () => T): T {
  try {
    return decode();
  } catch (cause) {
    if (!(cause instanceof UnitsError)) throw cause;
    throw corrupt(label, `${what}: ${cause.message}`, at, cause);
  }
}
