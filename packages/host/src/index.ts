export { absolutePath } from './absolute-path.ts';
export { clock } from './clock.ts';
export { HostError, type HostErrorCode } from './errors.ts';
export { newJobId } from './job-id.ts';
export { withoutMaglev } from './maglev.ts';
export { isAlive, thisProcess } from './process.ts';
export {
  type GivenSecret,
  secretFor,
  secretGiven,
  secretIn,
  secretInArgument,
  secretOf,
} from './secrets.ts';
