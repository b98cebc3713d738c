export { copyDown } from './copy-down.ts';
