import { readdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { type BuiltLayer, buildChain, layerAt } from '../chains/build.ts';
import { firstDifference, view } from '../chains/views.ts';
import { engine } from '../downfold.ts';
import { checkByQemu, infoByQemu } from '../tools/qemu.ts';
import { scratch } from '../tools/scratch.ts';
import { snapshotsAway } from '../tools/snapshots-away.ts';
import { type PullSpec, pullSpec } from './spec.ts';

/** Builds the chain of a seed by QEMU, streams or rebases its leaf by Downfold, and has QEMU judge. Rejects with what is wrong. */
export async function tryPull(seed: number): Promise<void> {
  const spec = pullSpec(seed);
  try {
    await pull(spec);
  } catch (cause) {
    const replay = `DOWNFOLD_SEED=${seed} pnpm --filter @downfold/trials pull`;
    throw new Error(
      `seed ${seed} (${spec.operation}): ${(cause as Error).message}\n  replay: ${replay}`,
      { cause },
    );
  }
}

async function pull(spec: PullSpec): Promise<void> {
  await using directory = await scratch('pull');
  const chain = await buildChain(spec.chain, directory.path);
  const onto =
    spec.onto.length === 0
      ? []
      : (await buildChain({ ...spec.chain, layers: spec.onto }, directory.path)).layers;
  const leaf = layerAt(chain, chain.layers.length - 1);
  const base = onto.at(-1) ?? (spec.base === null ? null : layerAt(chain, spec.base));
  const images = [...chain.layers, ...onto];
  const before: Buffer[] = [];
  for (const image of images) before.push(await view(image));
  const files = await readdir(directory.path);
  // what the host has reserved and nobody wrote is a hole until it was read: plan and job are to see the same
  for (const file of files) await readFile(join(directory.path, file));
  const work = engine();
  const plan = await snapshotsAway(() =>
    work.plan({
      file: leaf.path,
      format: 'qcow2',
      base: base?.path,
      baseFormat: base?.spec.format,
      strategy: spec.operation,
    }),
  );
  const result = await work.run(plan, { verify: spec.chain.seed % 2 === 0 });
  if (result.bytesCopied > plan.bytesToCopy)
    throw new Error(`copied ${result.bytesCopied} bytes, planned ${plan.bytesToCopy}`);
  for (const [index, image] of images.entries()) await judgeImage(image, before[index] as Buffer);
  await judgeReference(leaf, base, directory.path);
  const left = (await readdir(directory.path)).filter((name) => !files.includes(name));
  if (left.length > 0) throw new Error(`left behind: ${left.join(', ')}`);
}

/** Nobody reads anything else than before, and no image has an error or a leak. */
async function judgeImage(image: BuiltLayer, before: Buffer): Promise<void> {
  const at = firstDifference(await view(image), before);
  if (at !== null) throw new Error(`${image.spec.file} does not read as before: byte ${at}`);
  const fault = image.spec.format === 'qcow2' ? await checkByQemu(image.path) : '';
  if (fault !== '') throw new Error(`${image.spec.file}: ${fault}`);
}

async function judgeReference(
  leaf: BuiltLayer,
  base: BuiltLayer | null,
  directory: string,
): Promise<void> {
  const info = await infoByQemu(leaf.path, 'qcow2');
  const name = info['backing-filename'];
  const found = name === undefined ? null : resolve(directory, name);
  if (found !== (base?.path ?? null)) throw new Error(`the leaf names '${name}'`);
  const format = info['backing-filename-format'];
  if (base !== null && format !== base.spec.format) throw new Error(`its format is '${format}'`);
}
