import { DownfoldError } from '@downfold/units';

/** `HOST_SECRET`: a secret that cannot be read, is not what it is said to be, or would be shown to others. */
export type HostErrorCode = 'HOST_SECRET';

/** What this machine does not have, or not in the form that was said. Never holds a secret. */
export class HostError extends DownfoldError<HostErrorCode> {
  override readonly name: string = 'HostError';
}
