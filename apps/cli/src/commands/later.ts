import { UsageError } from '../failure.ts';

/** What design and qemu-img have and this version has not, with what does it meanwhile. */
export const LATER: Readonly<Record<string, string>> = {
  abort: "meanwhile 'downfold resume FILE' finishes the job",
  convert: "meanwhile 'qemu-img convert'",
  measure: "meanwhile 'qemu-img measure'",
  rebase: "meanwhile 'qemu-img rebase'",
  resize: "meanwhile 'qemu-img resize'",
  serve: "meanwhile 'qemu-storage-daemon', or 'qemu-nbd' for one image",
  snapshot: "meanwhile 'qemu-img snapshot'",
  stream: "meanwhile 'qemu-img rebase -b BASE -F FORMAT FILE'",
};

/** Strategies of the design that come later. */
export const LATER_STRATEGIES: readonly string[] = [
  'active',
  'auto',
  'depth-first',
  'preserve',
  'staged',
];

/** @throws UsageError always. */
export function notThereYet(what: string, meanwhile: string): never {
  throw new UsageError(`'${what}' is not there yet: it comes with a later version; ${meanwhile}`);
}
