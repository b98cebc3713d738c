/**
 * What opens an encrypted image. It is kept for as long as images that it opens are opened again: finding their key takes seconds, on purpose, and
 * is done once. Nobody else is to have it, and no message shows it.
 */
export interface ImageSecret {
  readonly passphrase: Uint8Array;
  /** Keys that were found with it, by what their headers are. For formats alone. */
  readonly keys: Map<string, Uint8Array>;
}

/** @param passphrase its bytes, all of them: a line end at the end of a file is part of it */
export function imageSecret(passphrase: Uint8Array): ImageSecret {
  return { passphrase, keys: new Map() };
}
