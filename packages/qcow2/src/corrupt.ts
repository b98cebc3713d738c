import { ImageError, type ImageErrorCode } from '@downfold/image';

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
