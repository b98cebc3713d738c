import { checkByQemu, viewByQemu } from '../tools/qemu.ts';
import type { BuiltChain, BuiltLayer } from './build.ts';

/** What each image of a chain reads as, by QEMU, before anything was committed. */
export interface Views {
  readonly layers: readonly Buffer[];
  readonly sibling: Buffer | null;
  readonly bystander: Buffer | null;
}

/** Reads every layer through its chain by QEMU. Rejects when QEMU finds fault with its own image. */
export async function viewsBefore(chain: BuiltChain): Promise<Views> {
  const layers: Buffer[] = [];
  for (const layer of chain.layers) layers.push(await view(layer));
  const built = chain.layers[chain.spec.base];
  const fault = built?.spec.format === 'qcow2' ? await checkByQemu(built.path) : '';
  if (fault !== '') throw new Error(`seed ${chain.spec.seed}: QEMU made a bad base: ${fault}`);
  return {
    layers,
    sibling: chain.sibling === null ? null : await view(chain.sibling),
    bystander: chain.bystander === null ? null : await view(chain.bystander),
  };
}

/** What a layer reads as through its chain, by QEMU. */
export function view(layer: BuiltLayer): Promise<Buffer> {
  return viewByQemu(layer.path, layer.spec.format);
}

/** Where two views differ first; null: nowhere. Past the end of the shorter one only zeros are equal to nothing. */
export function firstDifference(found: Uint8Array, wanted: Uint8Array): number | null {
  if (Buffer.compare(found, wanted) === 0) return null;
  const length = Math.max(found.length, wanted.length);
  for (let at = 0; at < length; at += 1) if ((found[at] ?? 0) !== (wanted[at] ?? 0)) return at;
  return Math.min(found.length, wanted.length);
}

/**
 * What base must read as afterwards: as top did up to top's size; then explicit zeros as far as the longest overlay of
 * top reaches (QEMU leaves base's old bytes there: its short-top defect); then what base held. Never shorter than it was.
 */
export function baseAfter(chain: BuiltChain, views: Views): Buffer {
  const { base, top } = chain.spec;
  const topView = views.layers[top] ?? Buffer.alloc(0);
  const old = views.layers[base] ?? Buffer.alloc(0);
  const overlays = [views.layers[top + 1], views.sibling].map((overlay) => overlay?.length ?? 0);
  const wanted = Buffer.alloc(Math.max(old.length, topView.length));
  old.copy(wanted);
  const zerosTo = Math.max(topView.length, ...overlays);
  wanted.fill(0, topView.length, Math.min(wanted.length, zerosTo));
  topView.copy(wanted);
  return wanted;
}
