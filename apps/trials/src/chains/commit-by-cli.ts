import { downfoldJson } from '../tools/cli.ts';
import { type BuiltChain, layerAt } from './build.ts';
import type { Views } from './views.ts';

/** Commits the chain by the built command line, in a process of its own. */
export async function commitByCli(
  chain: BuiltChain,
  _views: Views,
  strategy: string,
): Promise<void> {
  const { base, top, emptyTop, layers } = chain.spec;
  const leaf = layerAt(chain, layers.length - 1);
  const [basePath, topPath] = [layerAt(chain, base).path, layerAt(chain, top).path];
  // `-b` implies `-d`, as it does for qemu-img: emptying is asked for by leaving both out
  const onto = emptyTop && base === top - 1 ? [] : ['-b', basePath, '--top', topPath];
  const siblings = strategy === 'preserve' ? '--keep-siblings' : '--invalidate-siblings';
  await downfoldJson([
    'commit',
    '-f',
    'qcow2',
    '--strategy',
    strategy,
    siblings,
    ...onto,
    leaf.path,
  ]);
}
