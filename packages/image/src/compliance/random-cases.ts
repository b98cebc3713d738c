import type { ImageCase } from './cases.ts';
import { RandomChanges } from './random-changes.ts';
import type { LayerOptions } from './test-bed.ts';

const STEPS = 30;

const settings: readonly (readonly [id: string, below: (size: number) => LayerOptions])[] = [
  ['alone', () => ({})],
  ['over-long', (size) => ({ backed: true, belowBytes: size * 4 })],
  ['over-equal', (size) => ({ backed: true, belowBytes: size })],
  ['over-short', (size) => ({ backed: true, belowBytes: Math.floor(size / 3) })],
];

/** Changes drawn from the seed, against the flat model. The seed is in the name of a failure; run it again with that. */
export const randomCases: readonly ImageCase[] = settings.map(([id, below]) => ({
  id: `random/${id}`,
  because: 'operations meet each other in ways that nobody thinks of',
  needs: id === 'alone' ? [] : ['backing'],
  run: async (bed, context) => {
    const layer = await bed.layer(below(bed.size));
    const changes = new RandomChanges(layer, bed, context, await bed.copySource(bed.cluster * 8));
    for (let step = 1; step <= STEPS; step++) {
      try {
        await changes.next();
        if (context.random() < 0.3) await layer.verify();
        if (context.random() < 0.15) await layer.image.flush();
        if (context.random() < 0.05) {
          await layer.settle();
          await layer.reopen('write');
        }
      } catch (cause) {
        throw new Error(`step ${step}: ${(cause as Error).message}`, { cause });
      }
    }
    await layer.settle();
  },
}));
