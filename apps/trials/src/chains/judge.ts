import { readdir } from 'node:fs/promises';
import { isAbsolute, resolve } from 'node:path';
import { checkByQemu, infoByQemu } from '../tools/qemu.ts';
import { type BuiltChain, type BuiltLayer, layerAt } from './build.ts';
import { PATTERNS } from './spec.ts';
import { baseAfter, firstDifference, type Views, view } from './views.ts';

/**
 * What is wrong with a chain after its commit, one line a problem; empty: nothing. QEMU reads and checks; it never
 * commits, because its own commit leaks base's old bytes past a short top.
 */
export async function judge(
  chain: BuiltChain,
  views: Views,
  strategy = 'copy-down',
): Promise<string[]> {
  return [
    ...(await judgeContents(chain, views, strategy)),
    ...(await judgeMetadata(chain)),
    ...(await judgeReferences(chain, strategy)),
    ...(await judgeLeftovers(chain)),
  ];
}

/** Top and everything above it read as before; so does what lies below base; base reads as top did. `preserve` keeps all but base. */
async function judgeContents(chain: BuiltChain, views: Views, strategy: string): Promise<string[]> {
  const { base, top } = chain.spec;
  const problems: string[] = [];
  const compare = async (layer: BuiltLayer, wanted: Buffer, what: string): Promise<void> => {
    const found = await view(layer);
    const at = firstDifference(found, wanted);
    if (at === null) return;
    const bytes = `0x${found[at]?.toString(16)}, not 0x${wanted[at]?.toString(16)}`;
    const sizes = `${found.length} bytes long, wanted ${wanted.length}`;
    problems.push(`content: ${layer.spec.file} ${what}: byte ${at} is ${bytes} (${sizes})`);
  };
  for (const [index, layer] of chain.layers.entries()) {
    const before = views.layers[index];
    const lost = strategy === 'preserve' ? index === base : index >= base && index < top;
    if (before === undefined || lost) continue;
    await compare(layer, before, 'does not read as before');
  }
  if (chain.sibling !== null && views.sibling !== null)
    await compare(chain.sibling, views.sibling, 'does not read as before');
  if (strategy === 'preserve' && chain.bystander !== null && views.bystander !== null)
    await compare(chain.bystander, views.bystander, 'does not read as before');
  await compare(layerAt(chain, base), baseAfter(chain, views), 'does not read as top did');
  return problems;
}

/** `qemu-img check` finds neither an error nor a leak in any image of the chain. */
async function judgeMetadata(chain: BuiltChain): Promise<string[]> {
  const problems: string[] = [];
  for (const layer of everyLayer(chain)) {
    if (layer.spec.format !== 'qcow2') continue;
    const fault = await checkByQemu(layer.path);
    if (fault !== '') problems.push(`check: ${layer.spec.file}: ${fault}`);
  }
  return problems;
}

/** Top and its overlays (depth-first: every layer) name base, relative where they were relative, with its format; all others name what they did. */
async function judgeReferences(chain: BuiltChain, strategy: string): Promise<string[]> {
  const { base, top } = chain.spec;
  const target = layerAt(chain, base);
  const problems: string[] = [];
  for (const layer of everyLayer(chain)) {
    const index = chain.layers.indexOf(layer);
    if (layer.backing === null) continue;
    const first = strategy === 'depth-first' ? base + 1 : top;
    const relinked = (index >= first && index <= top + 1) || layer === chain.sibling;
    const on = layer === chain.bystander ? chain.spec.bystanderOn : index - 1;
    const below = relinked && layer !== chain.bystander ? target : layerAt(chain, on);
    const info = await infoByQemu(layer.path, 'qcow2');
    const name = info['backing-filename'] ?? '';
    if (resolve(chain.directory, name) !== below.path)
      problems.push(`reference: ${layer.spec.file} names '${name}', not ${below.spec.file}`);
    if (isAbsolute(name) !== isAbsolute(layer.backing))
      problems.push(`reference: ${layer.spec.file} had '${layer.backing}', has '${name}'`);
    const format = info['backing-filename-format'];
    if (format !== below.spec.format)
      problems.push(`reference: ${layer.spec.file} says its backing file is ${format}`);
  }
  return problems;
}

/** No file is there that was not there before: no journal, no temporary. */
async function judgeLeftovers(chain: BuiltChain): Promise<string[]> {
  const known = new Set(everyLayer(chain).map((layer) => layer.spec.file));
  for (let index = 0; index < PATTERNS; index += 1) known.add(`pattern${index}`);
  const names = await readdir(chain.directory);
  return names
    .filter((name) => !known.has(name))
    .map((name) => `leftover: ${name} was not there before`);
}

function everyLayer(chain: BuiltChain): readonly BuiltLayer[] {
  const others = [chain.sibling, chain.bystander].filter((layer) => layer !== null);
  return [...chain.layers, ...others];
}
