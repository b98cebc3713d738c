import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import type { Recipe } from './recipes.ts';

/** What `qemu-img info` says. */
export interface GoldenInfo {
  /** Bytes. */
  readonly virtualSize: number;
  /** Bytes; null for raw. */
  readonly clusterSize: number | null;
  readonly backing: { readonly name: string; readonly format: string | null } | null;
  /** `format-specific.data`; null for raw. */
  readonly specific: Readonly<Record<string, unknown>> | null;
}

/** What `qemu-img check` counts; absent counts are 0. */
export interface GoldenCheck {
  readonly corruptions: number;
  readonly leaks: number;
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  readonly imageEndOffset: number;
}

/** What QEMU's own tools read in an image. */
export interface GoldenFacts {
  readonly info: GoldenInfo;
  /** SHA-256 of the virtual disk, backing files included. */
  readonly view: string;
  /** SHA-256 of the virtual disk as this file alone has it: zeros where the backing file would show. */
  readonly layer: string;
  /** Extents of this file alone, from `qemu-img map`: `<offset>+<length> <status>[ @<host offset>]`. */
  readonly map: readonly string[];
  /** SHA-256 of the disk in each internal snapshot, by name. */
  readonly snapshots: Readonly<Record<string, string>>;
  /** null for raw. */
  readonly check: GoldenCheck | null;
}

/** One image of the manifest. */
export interface GoldenImage extends Recipe {
  /** Where it lies in the unpacked `images.bin.gz`, in bytes. */
  readonly at: number;
  readonly bytes: number;
  /** Of the file. */
  readonly sha256: string;
  /** null for an image that Downfold refuses. */
  readonly facts: GoldenFacts | null;
}

/** `manifest.json`. */
export interface Manifest {
  /** First line of `qemu-img --version`. */
  readonly qemu: string;
  readonly images: readonly GoldenImage[];
}

/** Where the manifest lies. */
export const MANIFEST: URL = new URL('manifest.json', import.meta.url);

/** All images in one file, one after the other, gzipped. */
export const IMAGES: URL = new URL('images.bin.gz', import.meta.url);

/** The manifest as it is in the repository. */
export function readManifest(): Manifest {
  return JSON.parse(readFileSync(MANIFEST, 'utf8')) as Manifest;
}

/** The bytes of every image, by name. */
export function readImages(manifest: Manifest): ReadonlyMap<string, Uint8Array> {
  const all = gunzipSync(readFileSync(IMAGES));
  return new Map(
    manifest.images.map(({ name, at, bytes }) => [
      name,
      new Uint8Array(all.subarray(at, at + bytes)),
    ]),
  );
}
