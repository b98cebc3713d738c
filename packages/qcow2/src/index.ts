export { BARRIER } from './barriers.ts';
export type { Qcow2CreateOptions } from './create.ts';
export { qcow2 } from './format.ts';
