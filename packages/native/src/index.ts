export { certain } from './certain.ts';
export { findKoffi, type Koffi, type KoffiFunction, loadKoffi } from './koffi.ts';
