import { killers } from '@downfold/compliance';
import { memoryBackend } from '@downfold/storage-memory';
import { expect, test } from 'vitest';
import { type ImageCase, imageKit, imageSubject } from '../src/compliance/index.ts';
import type { ImageAbility } from '../src/index.ts';
import { changes } from './mutants/changes.ts';
import { extentsAndReads } from './mutants/extents-and-reads.ts';
import { header } from './mutants/header.ts';
import type { Mutant } from './mutants/mutant.ts';
import { orderAndRefusals } from './mutants/order-and-refusals.ts';
import { staging } from './mutants/staging.ts';
import { toy } from './toy-format.ts';

interface Subject extends Mutant {
  /** What it claims; default: what the toy format does. */
  readonly abilities?: ReadonlySet<ImageAbility>;
}

/** The sound toy format, claiming less: what it does not claim it must refuse, and does not. */
const pretenders: readonly Subject[] = (
  [
    ['backing', 'backing/absent'],
    ['backing', 'create/backing-absent'],
    ['zero', 'zero/absent-is-never-reported'],
    ['deallocate', 'deallocate/absent'],
    ['grow', 'resize/growth-absent'],
    ['mark', 'mark/absent'],
    ['stage', 'stage/absent'],
  ] as const
).map(([ability, killedBy]) => ({
  name: `${ability} is not claimed, and there (${killedBy})`,
  killedBy,
  format: toy,
  abilities: new Set([...toy.abilities].filter((claimed) => claimed !== ability)),
}));

const mutants: readonly Subject[] = [
  ...extentsAndReads,
  ...changes,
  ...header,
  ...orderAndRefusals,
  ...staging,
  ...pretenders,
];

/** The cases of `kit` that a mutant fails. */
function killersOf(
  kit: readonly ImageCase[],
  { format, abilities }: Subject,
): Promise<readonly string[]> {
  const claimed = abilities ?? toy.abilities;
  return killers(kit, imageSubject({ format, backend: () => memoryBackend(), abilities: claimed }));
}

test.each(mutants)('the kit kills: $name, by $killedBy', async (mutant) => {
  const named = imageKit.filter(({ id }) => id === mutant.killedBy);
  expect(await killersOf(named, mutant)).toEqual([mutant.killedBy]);
});

test('every case kills a mutant: it can fail', async () => {
  let left = imageKit.filter(({ id }) => !mutants.some(({ killedBy }) => killedBy === id));
  for (const mutant of mutants) {
    const killed = await killersOf(left, mutant);
    left = left.filter(({ id }) => !killed.includes(id));
  }
  expect(left.map(({ id }) => id)).toEqual([]);
});
