import { QmpError } from '@downfold/qmp';
import type { StartOptions } from '../../jobs/block-jobs.ts';
import type { StartMembers } from '../schema/jobs.ts';

/** How a job is started, by the arguments of the command that does. @throws QmpError */
export function startOptions(args: StartMembers): StartOptions {
  const { speed, 'on-error': onError, 'filter-node-name': filter } = args;
  if (speed !== undefined && speed < 0)
    throw new QmpError('GenericError', "Parameter 'speed' expects a non-negative value");
  const { 'auto-finalize': autoFinalize, 'auto-dismiss': autoDismiss } = args;
  return {
    ...(speed === undefined ? {} : { speed }),
    ...(onError === undefined ? {} : { onError }),
    ...(filter === undefined ? {} : { filter }),
    ...(autoFinalize === undefined ? {} : { autoFinalize }),
    ...(autoDismiss === undefined ? {} : { autoDismiss }),
  };
}
