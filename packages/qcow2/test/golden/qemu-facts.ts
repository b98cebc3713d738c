import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { outputOf, runTool } from '@downfold/compliance';
import type { GoldenCheck, GoldenFacts, GoldenInfo } from './manifest.ts';
import { type MapRun, mapLines } from './map-lines.ts';
import type { Recipe } from './recipes.ts';

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
}

/** SHA-256 as hex digits. */
export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** First line of `qemu-img --version`. */
export function qemuVersion(): string {
  return tool('.', '--version').split('\n')[0] ?? '';
}

/** What QEMU's tools say of an image in `directory`. */
export function factsByQemu(directory: string, { name, format }: Recipe): GoldenFacts {
  const alone = `json:${JSON.stringify({
    driver: format,
    ...(format === 'qcow2' ? { backing: null } : {}),
    file: { driver: 'file', filename: name },
  })}`;
  return {
    info: info(directory, name, format),
    view: view(directory, '-f', format, name),
    layer: view(directory, alone),
    map: map(directory, alone),
    snapshots: format === 'qcow2' ? snapshots(directory, name) : {},
    check: format === 'qcow2' ? check(directory, name) : null,
  };
}

function tool(directory: string, ...args: readonly string[]): string {
  return outputOf('qemu-img', args, { cwd: directory });
}

function info(directory: string, name: string, format: string): GoldenInfo {
  const said = JSON.parse(tool(directory, 'info', '--output=json', '-f', format, name));
  const backing = said['backing-filename'];
  return {
    virtualSize: said['virtual-size'],
    clusterSize: said['cluster-size'] ?? null,
    backing:
      backing === undefined
        ? null
        : { name: backing, format: said['backing-filename-format'] ?? null },
    specific: said['format-specific']?.type === 'qcow2' ? said['format-specific'].data : null,
  };
}

/** SHA-256 of what `qemu-img convert` reads. */
function view(directory: string, ...image: readonly string[]): string {
  const copy = join(directory, 'view.tmp');
  try {
    tool(directory, 'convert', ...image, '-O', 'raw', copy);
    return sha256(readFileSync(copy));
  } finally {
    rmSync(copy, { force: true });
  }
}

function map(directory: string, image: string): readonly string[] {
  const entries = JSON.parse(tool(directory, 'map', '--output=json', image)) as MapEntry[];
  return mapLines(entries.map(runOf));
}

function runOf({ start, length, present, zero, data, offset }: MapEntry): MapRun {
  const run = { offset: start, length, host: offset ?? null };
  // zero and data: preallocated data, found to be a hole of the file
  if (data) return { ...run, status: offset === undefined ? 'compressed' : 'data' };
  if (!present) return { ...run, status: 'unallocated' };
  if (!zero) throw new Error(`qemu-img map: neither data nor zero at ${start}`);
  return { ...run, status: offset === undefined ? 'zero' : 'zero preallocated' };
}

function snapshots(directory: string, name: string): Readonly<Record<string, string>> {
  const said = JSON.parse(tool(directory, 'info', '--output=json', '-f', 'qcow2', name));
  const list = (said.snapshots ?? []) as readonly { readonly name: string }[];
  return Object.fromEntries(
    list.map((snapshot) => [
      snapshot.name,
      view(directory, '-l', `snapshot.name=${snapshot.name}`, '-f', 'qcow2', name),
    ]),
  );
}

function check(directory: string, name: string): GoldenCheck {
  const { stdout } = runTool('qemu-img', ['check', '--output=json', '-f', 'qcow2', name], {
    cwd: directory,
  });
  const said = JSON.parse(stdout) as Record<string, number>;
  return {
    corruptions: said['corruptions'] ?? 0,
    leaks: said['leaks'] ?? 0,
    totalClusters: said['total-clusters'] ?? 0,
    allocatedClusters: said['allocated-clusters'] ?? 0,
    fragmentedClusters: said['fragmented-clusters'] ?? 0,
    compressedClusters: said['compressed-clusters'] ?? 0,
    imageEndOffset: said['image-end-offset'] ?? 0,
  };
}
