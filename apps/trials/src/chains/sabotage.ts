import { open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { must } from '../tools/process.ts';
import { qemuIo } from '../tools/qemu.ts';
import { type BuiltChain, type BuiltLayer, layerAt } from './build.ts';
import { relinkByQemu } from './reference.ts';
import { type ChainSpec, chainSpec } from './spec.ts';
import type { Views } from './views.ts';

/** One way to spoil a chain that was committed rightly, and the kind of problem the judge must report. */
export interface Sabotage {
  readonly name: string;
  readonly caught: 'content' | 'check' | 'reference' | 'leftover';
  spoil(chain: BuiltChain, views: Views): Promise<void>;
}

/** The first seed from 1 on whose chain has all that the sabotages need: every role taken, and a short top. */
export function sabotageSpec(): ChainSpec {
  for (let seed = 1; ; seed += 1) {
    const spec = chainSpec(seed);
    const [base, top, overlay] = [spec.base, spec.top, spec.top + 1].map((at) => spec.layers[at]);
    if (base === undefined || top === undefined || overlay === undefined) continue;
    const fits =
      spec.base > 0 &&
      spec.top - spec.base > 1 &&
      spec.sibling !== null &&
      spec.bystander === null &&
      overlay.size > top.size + 1024 &&
      base.size > top.size + 1024 &&
      overlay.changes.length === 0 &&
      /refcount_bits=(8|16|32|64)\b/.test(base.options) &&
      overlay.backingName === 'relative' &&
      spec.layers.slice(1).every((layer) => layer.options.includes('1.1'));
    if (fits) return spec;
  }
}

/** Every way a commit went wrong that the judge is held to. */
export const sabotages: readonly Sabotage[] = [
  {
    name: 'a byte of base is not what top held',
    caught: 'content',
    spoil: (chain) => poke(layerAt(chain, chain.spec.base), 0),
  },
  {
    name: "base's old bytes show past the end of a short top",
    caught: 'content',
    spoil: (chain, views) =>
      poke(layerAt(chain, chain.spec.base), (views.layers[chain.spec.top]?.length ?? 0) + 512),
  },
  {
    name: 'a layer below base was written',
    caught: 'content',
    spoil: (chain) => poke(layerAt(chain, chain.spec.base - 1), 512),
  },
  {
    name: 'a sector of the overlay of top is lost',
    caught: 'content',
    spoil: (chain) => poke(layerAt(chain, chain.spec.top + 1), 1024),
  },
  {
    name: 'top was not relinked',
    caught: 'reference',
    spoil: (chain) =>
      relinkByQemu(layerAt(chain, chain.spec.top), layerAt(chain, chain.spec.top - 1)),
  },
  {
    name: 'the overlay of top was not relinked',
    caught: 'reference',
    spoil: (chain) =>
      relinkByQemu(layerAt(chain, chain.spec.top + 1), layerAt(chain, chain.spec.top)),
  },
  {
    name: 'the second overlay of top was not relinked',
    caught: 'reference',
    spoil: async (chain) => {
      if (chain.sibling !== null) await relinkByQemu(chain.sibling, layerAt(chain, chain.spec.top));
    },
  },
  {
    name: 'a relative name became absolute',
    caught: 'reference',
    spoil: async (chain) => {
      const [base, overlay] = [layerAt(chain, chain.spec.base), layerAt(chain, chain.spec.top + 1)];
      const to = ['-F', base.spec.format, '-b', base.path];
      await must('qemu-img', ['rebase', '-u', '-f', 'qcow2', ...to, overlay.path]);
    },
  },
  {
    name: 'the backing format was not written',
    caught: 'reference',
    spoil: (chain) => forgetFormat(layerAt(chain, chain.spec.top + 1)),
  },
  {
    name: 'a cluster of base is leaked',
    caught: 'check',
    spoil: (chain) => leak(layerAt(chain, chain.spec.base)),
  },
  {
    name: 'the journal is still there',
    caught: 'leftover',
    spoil: (chain) => writeFile(join(chain.directory, 'layer1.qcow2.journal'), ''),
  },
];

/** Changes 512 guest bytes at `offset` to something no pattern file holds in a row. */
function poke(layer: BuiltLayer, offset: number): Promise<void> {
  return qemuIo(layer.path, layer.spec.format, [`write -q -P 0xee ${offset} 512`]);
}

/** Turns the backing-format extension into one nobody knows. */
async function forgetFormat(layer: BuiltLayer): Promise<void> {
  const file = await open(layer.path, 'r+');
  try {
    const head = Buffer.alloc(512);
    await file.read(head, 0, head.length, 0);
    const at = head.indexOf(Buffer.from('e2792aca', 'hex'));
    if (at < 0) throw new Error(`${layer.spec.file} has no backing format to forget`);
    await file.write(Buffer.from('12345678', 'hex'), 0, 4, at);
  } finally {
    await file.close();
  }
}

/** Appends a cluster and counts it; nobody refers to it. The refcounts are at least a byte wide, in their first block. */
async function leak(layer: BuiltLayer): Promise<void> {
  const file = await open(layer.path, 'r+');
  try {
    const head = Buffer.alloc(104);
    await file.read(head, 0, head.length, 0);
    const cluster = 2 ** head.readUInt32BE(20);
    const width = 2 ** head.readUInt32BE(96) / 8;
    const clusters = Math.ceil((await file.stat()).size / cluster);
    await file.truncate((clusters + 1) * cluster);
    const block = Buffer.alloc(8);
    await file.read(block, 0, 8, Number(head.readBigUInt64BE(48)));
    const at = Number(block.readBigUInt64BE(0)) + clusters * width + width - 1;
    await file.write(Uint8Array.of(1), 0, 1, at);
  } finally {
    await file.close();
  }
}
