import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import { qemuIo } from '../tools/qemu.ts';
import { type ChainSpec, type Change, type LayerSpec, PATTERNS } from './spec.ts';

/** A layer as it lies on disk. */
export interface BuiltLayer {
  readonly spec: LayerSpec;
  readonly path: string;
  /** The backing name written into it; null at the bottom. */
  readonly backing: string | null;
}

/** A chain as it lies on disk, untouched by Downfold. */
export interface BuiltChain {
  readonly spec: ChainSpec;
  readonly directory: string;
  /** Bottom first. */
  readonly layers: readonly BuiltLayer[];
  readonly sibling: BuiltLayer | null;
  readonly bystander: BuiltLayer | null;
}

/** Makes the chain in `directory` by `qemu-img` and `qemu-io`. */
export async function buildChain(spec: ChainSpec, directory: string): Promise<BuiltChain> {
  await writePatterns(spec.seed, directory);
  const layers: BuiltLayer[] = [];
  for (const layer of spec.layers)
    layers.push(await buildLayer(layer, layers.at(-1) ?? null, directory));
  const top = layers[spec.top];
  const sibling =
    spec.sibling === null || top === undefined
      ? null
      : await buildLayer(spec.sibling, top, directory);
  const bystander =
    spec.bystander === null
      ? null
      : await buildLayer(spec.bystander, layers[spec.bystanderOn] ?? null, directory);
  return { spec, directory, layers, sibling, bystander };
}

/** Layers at `index`; throws when there is none. */
export function layerAt(chain: BuiltChain, index: number): BuiltLayer {
  const layer = chain.layers[index];
  if (layer === undefined) throw new Error(`seed ${chain.spec.seed}: no layer ${index}`);
  return layer;
}

async function buildLayer(
  spec: LayerSpec,
  below: BuiltLayer | null,
  directory: string,
): Promise<BuiltLayer> {
  const path = join(directory, spec.file);
  const backing =
    below === null ? null : spec.backingName === 'absolute' ? below.path : below.spec.file;
  if (spec.format === 'raw') {
    await writeFile(path, '');
    await truncate(path, spec.size);
  } else {
    const onto = below === null ? [] : ['-b', backing ?? '', '-F', below.spec.format];
    const args = ['create', '-q', '-f', 'qcow2', '-o', spec.options, ...onto, path];
    await must('qemu-img', [...args, String(spec.size)], { cwd: directory });
  }
  const commands = spec.changes.map(command);
  const before = spec.snapshotBefore ?? commands.length;
  const options = { cwd: directory };
  await qemuIo(path, spec.format, commands.slice(0, before), options);
  if (spec.snapshotBefore !== null) await must('qemu-img', ['snapshot', '-q', '-c', 's1', path]);
  await qemuIo(path, spec.format, commands.slice(before), options);
  return { spec, path, backing };
}

function command(change: Change): string {
  const range = `${change.offset} ${change.length}`;
  switch (change.kind) {
    case 'write':
      return `write -q -s pattern${change.pattern} ${range}`;
    case 'compressed':
      return `write -q -c -s pattern${change.pattern} ${range}`;
    case 'zero':
      return `write -q -z ${range}`;
    case 'zero-unmap':
      return `write -q -z -u ${range}`;
    case 'discard':
      return `discard -q ${range}`;
  }
}

/** Pattern files of odd lengths, so that bytes tell where they came from; the odd ones compress to about half. */
async function writePatterns(seed: number, directory: string): Promise<void> {
  for (let index = 0; index < PATTERNS; index += 1) {
    const from = draw(seed * PATTERNS + index + 1);
    const letters = index % 2 === 0 ? 256 : 16;
    const bytes = Uint8Array.from({ length: 65_521 - 2 * index }, () => from.integer(letters));
    await writeFile(join(directory, `pattern${index}`), bytes);
  }
}
