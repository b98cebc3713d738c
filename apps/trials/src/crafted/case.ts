import type { SparseFile } from './sparse.ts';

/** What is done with an image, in this order. */
export type Step = 'open' | 'map' | 'read' | 'check' | 'describe';

/** What a check may say of an image that opens. */
export type Verdict = 'clean' | 'leaks' | 'corruptions';

/** A run of guest bytes; what no region covers reads as zeros. */
export interface Region {
  readonly at: number;
  readonly length: number;
  readonly byte: number;
}

/**
 * What is right. With `codes` alone the image must be refused with one of them, when it is opened, mapped, read or
 * checked. With `view` alone it must read so. With both, either will do: the format's rules leave it open.
 */
export interface Expected {
  readonly codes?: readonly string[];
  /** The step that must be the one that refuses; what comes before it must go well. Default any. */
  readonly at?: Step;
  readonly view?: readonly Region[];
  /** What `check` must say of an image that opens; default anything. A refusal by `codes` is right too. */
  readonly check?: readonly Verdict[];
}

/** What `qemu-img` 7.2 does with the image: measured, for the record and for the comparison of contents. */
type QemuVerdict =
  /** Reads it, and rightly so: our view must be the same, byte for byte. */
  | 'reads'
  | 'refuses'
  /** Reads it although it is broken; what it reads is no guide. */
  | 'accepts-broken'
  /** Seconds, or never ends. */
  | 'hangs'
  /** Opens what the image has no business to name. */
  | 'follows';

/** A file that stands beside the image. */
export type Companion =
  | { readonly name: string; readonly file: SparseFile }
  | { readonly name: string; readonly link: string }
  /** A hard link to the image. */
  | { readonly name: string; readonly hardLink: true }
  | { readonly name: string; readonly fifo: true }
  | { readonly name: string; readonly directory: true };

/** One crafted image. It is written to `<corpus>/<name>/image.qcow2`; `<corpus>/outside/` must never be opened. */
export interface CraftedCase {
  readonly name: string;
  /** What is wrong with it, or hostile about it. */
  readonly because: string;
  readonly expected: Expected;
  readonly qemu: QemuVerdict;
  /** It is opened with this passphrase, and by a policy that follows names of external data files. */
  readonly secret?: string;
  readonly allowDataFile?: true;
  readonly image: SparseFile;
  readonly companions?: readonly Companion[];
}

/** The view of the standard image: its first cluster full of 0xa5. */
export const STANDARD_VIEW: readonly Region[] = [{ at: 0, length: 65536, byte: 0xa5 }];
