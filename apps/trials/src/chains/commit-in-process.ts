import { engine, openForReading } from '../downfold.ts';
import { type BuiltChain, layerAt } from './build.ts';
import { firstDifference, type Views } from './views.ts';

/** Reads every layer by our own reader and compares with QEMU's views, then commits through the engine's API. */
export async function commitInProcess(
  chain: BuiltChain,
  views: Views,
  strategy: string,
): Promise<void> {
  const { base, top, emptyTop, layers } = chain.spec;
  const leaf = layerAt(chain, layers.length - 1);
  await compareReading(chain, views);
  const commit = engine();
  const plan = await commit.plan({
    file: leaf.path,
    format: leaf.spec.format,
    base: layerAt(chain, base).path,
    top: layerAt(chain, top).path,
    strategy,
    emptyTop,
    ...(strategy === 'preserve' ? { keepSiblings: true } : { invalidateSiblings: true }),
  });
  await commit.run(plan, { verify: chain.spec.seed % 3 === 0 });
}

async function compareReading(chain: BuiltChain, views: Views): Promise<void> {
  const leaf = layerAt(chain, chain.layers.length - 1);
  await using reader = await openForReading(leaf.path, leaf.spec.format);
  for (const [index, wanted] of views.layers.entries()) {
    const found = new Uint8Array(reader.sizes[index] ?? 0);
    await reader.read(0, found, index);
    // QEMU rounds the length of a raw file up to a sector
    const at = firstDifference(found, wanted.subarray(0, found.length));
    if (at === null && wanted.length - found.length < 512) continue;
    throw new Error(`layer ${index} does not read as QEMU reads it: byte ${at}`);
  }
}
