import { DownfoldError } from '@downfold/units';

/**
 * Why something encrypted could not be read or made.
 * - `LUKS_NOT_RECOGNISED`: no LUKS header.
 * - `LUKS_CORRUPT`: a header that breaks the format's rules: areas that overlap or reach past the end, a count of nothing.
 * - `LUKS_UNSUPPORTED`: another version, cipher or hash; `details.feature` names it.
 * - `LUKS_LIMIT`: trying its key slots would take longer than allowed; `details.limit` and `details.found`.
 * - `LUKS_WRONG_SECRET`: the passphrase opens none of the key slots.
 * - `LUKS_NO_KEY_SLOT`: no key slot is in use: no passphrase can open it.
 */
export type LuksErrorCode =
  | 'LUKS_NOT_RECOGNISED'
  | 'LUKS_CORRUPT'
  | 'LUKS_UNSUPPORTED'
  | 'LUKS_LIMIT'
  | 'LUKS_WRONG_SECRET'
  | 'LUKS_NO_KEY_SLOT';

/** Every failure of encryption. `details.offset`: the byte within the header area, where there is one. Never holds a secret. */
export class LuksError extends DownfoldError<LuksErrorCode> {
  override readonly name: string = 'LuksError';
}

/** @param offset byte within the header area */
export function corrupt(label: string, problem: string, offset: number): LuksError {
  return new LuksError('LUKS_CORRUPT', `${label}: encryption header: ${problem}`, {
    file: label,
    offset,
  });
}

export function unsupported(label: string, feature: string): LuksError {
  return new LuksError(
    'LUKS_UNSUPPORTED',
    `${label}: encryption with ${feature} is not supported`,
    {
      file: label,
      feature,
    },
  );
}
