export { clock } from './clock.ts';
export { isAlive, thisProcess } from './process.ts';
