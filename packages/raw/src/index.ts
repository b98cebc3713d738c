export { isRaw, type RawCreateOptions, raw } from './format.ts';
