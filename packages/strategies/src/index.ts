export { active } from './active.ts';
export { auto } from './auto.ts';
export { copyDown } from './copy-down.ts';
export { depthFirst } from './depth-first.ts';
export { preserve } from './preserve.ts';
export { rebase } from './rebase.ts';
export { staged } from './staged.ts';
export { stream } from './stream.ts';
