import { isPowerOfTwo } from '@downfold/units';
import { NbdError } from './errors.ts';
import type { BlockSize } from './protocol.ts';

/** Whether block sizes are what the protocol allows. Source: proto.md, "Size constraints". */
export function isBlockSize({ minimum, preferred, maximumPayload }: BlockSize): boolean {
  return (
    isPowerOfTwo(minimum) &&
    minimum <= 65_536 &&
    isPowerOfTwo(preferred) &&
    preferred >= minimum &&
    Number.isSafeInteger(maximumPayload) &&
    maximumPayload >= minimum
  );
}

/** @throws NbdError `NBD_RANGE` */
export function assertBlockSize(size: BlockSize, whose: string): void {
  if (isBlockSize(size)) return;
  const { minimum, preferred, maximumPayload } = size;
  throw new NbdError('NBD_RANGE', `${whose} has block sizes that the protocol does not allow`, {
    minimum,
    preferred,
    maximumPayload,
  });
}
