export { luks } from './format.ts';
export type { LuksCreateOptions } from './options.ts';
