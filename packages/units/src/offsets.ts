import { UnitsError } from './errors.ts';

declare const unit: unique symbol;
type Unit<Name extends string> = number & { readonly [unit]: Name };

/** Position in bytes on the virtual disk, as the guest counts. */
export type GuestOffset = Unit<'GuestOffset'>;
/** Position in bytes in the file that stores an image. */
export type HostOffset = Unit<'HostOffset'>;
/** Length in bytes. */
export type ByteLength = Unit<'ByteLength'>;
/** Either kind of offset. */
export type AnyOffset = GuestOffset | HostOffset;

/** Largest offset or length, in bytes: 2^53-1 (8 PiB). Larger values are refused, never rounded. */
export const LARGEST_OFFSET: number = Number.MAX_SAFE_INTEGER;

function checked(value: number, what: string): number {
  if (Number.isSafeInteger(value) && value >= 0) return value;
  const tooLarge = value > LARGEST_OFFSET;
  throw new UnitsError(
    tooLarge ? 'UNITS_TOO_LARGE' : 'UNITS_RANGE',
    `${what} ${value} is ${tooLarge ? 'above 2^53-1 bytes' : 'not a whole number of bytes >= 0'}`,
    { value },
  );
}

/** @throws UnitsError unless `value` is a whole number of bytes in 0..2^53-1. */
export function guestOffset(value: number): GuestOffset {
  return checked(value, 'guest offset') as GuestOffset;
}

/** @throws UnitsError unless `value` is a whole number of bytes in 0..2^53-1. */
export function hostOffset(value: number): HostOffset {
  return checked(value, 'host offset') as HostOffset;
}

/** @throws UnitsError unless `value` is a whole number of bytes in 0..2^53-1. */
export function byteLength(value: number): ByteLength {
  return checked(value, 'length') as ByteLength;
}

/** `offset` moved up by `by` bytes. @throws UnitsError above 2^53-1. */
export function advance<O extends AnyOffset>(offset: O, by: number): O {
  return checked(offset + by, 'offset') as O;
}
