import { CommitError } from '@downfold/commit';
import { planIn } from '@downfold/commit/compliance';
import { expect, it } from 'vitest';
import { auto, copyDown, depthFirst, preserve, staged } from '../src/index.ts';
import { commitOf, sectors } from './settings.ts';

const all = auto([copyDown, depthFirst, preserve, staged]);
const CHAIN = ['B dd', 'M@B d-', 'T@M -d', 'A@T --'];

it('takes the first of those that cost the same and harm nobody', async () => {
  const { strategy, chosen } = await planIn(all, commitOf(['B dd', 'T@B d-', 'A@T --']));
  expect(strategy).toEqual({ name: 'copy-down', version: 1 });
  expect(chosen?.why).toBe('copy-down: 512 B to move, as with depth-first; the simplest of equals');
});

it('lists what each would cost, and why one cannot', async () => {
  const { chosen } = await planIn(all, commitOf(CHAIN, { stages: false }));
  expect(chosen?.candidates.map((one) => one.strategy)).toEqual([
    'copy-down',
    'depth-first',
    'preserve',
    'staged',
  ]);
  const [first, , , last] = chosen?.candidates ?? [];
  expect(first).toMatchObject({ refused: null, temporaryBytes: 0, invalidated: 1 });
  expect(first?.bytesWritten).toBeGreaterThan(sectors(2));
  expect(last).toMatchObject({ bytesWritten: null, temporaryBytes: null, invalidated: null });
  expect(last?.refused).toContain('no second mapping');
});

it('takes the one that moves less', async () => {
  // preserve saves in M what T overwrites in base
  const { chosen } = await planIn(auto([preserve, copyDown]), commitOf(CHAIN));
  expect(chosen?.why).toBe('copy-down: moves the least, 1.00 KiB (preserve: 1.50 KiB)');
});

it('would rather move more than harm others', async () => {
  const one = await planIn(all, commitOf([...CHAIN, 'S@B --']));
  expect(one.strands).toEqual([]);
  expect(one.chosen?.why).toBe('preserve: keeps what another image reads (2.50 KiB to move)');
  const two = await planIn(all, commitOf([...CHAIN, 'S@B --', 'R@S --']));
  expect(two.chosen?.why).toContain('keeps what 2 other images read');
});

it('would rather not need space for a while', async () => {
  const { chosen } = await planIn(auto([staged, copyDown]), commitOf(CHAIN));
  expect(chosen?.why).toBe('copy-down: 1.00 KiB to move as with staged, and no temporary space');
});

it('would rather not take their meaning from intermediates', async () => {
  // top shadows all of M and shows nothing new in base, so preserve has nothing to save
  const setting = commitOf(['B dd', 'M@B d-', 'T@M d-', 'A@T --']);
  const { chosen } = await planIn(auto([copyDown, preserve]), setting);
  expect(chosen?.why).toBe('preserve: 512 B to move, and fewer images lose their meaning');
});

it('asks only those that can keep siblings when they are to be kept', async () => {
  const setting = commitOf([...CHAIN, 'S@B --'], { siblings: 'keep' });
  const { chosen, strategy } = await planIn(all, setting);
  expect(strategy.name).toBe('preserve');
  expect(chosen?.why).toBe('preserve: the only one that can do it');
  const refused = chosen?.candidates.filter((one) => one.refused !== null);
  expect(refused?.map((one) => [one.strategy, one.refused])).toEqual([
    ['copy-down', 'would change what other images read'],
    ['depth-first', 'would change what other images read'],
    ['staged', 'would change what other images read'],
  ]);
});

it('says of each why not when none can', async () => {
  const setting = commitOf([...CHAIN, 'S@B --'], { siblings: 'keep', stages: false });
  const plan = planIn(auto([copyDown, staged]), setting);
  await expect(plan).rejects.toMatchObject({ code: 'COMMIT_UNSUPPORTED' });
  await expect(plan).rejects.toThrow(
    'no strategy can do this: copy-down (would change what other images read), staged (would change what other images read)',
  );
});

it('does not take a bad request, or a defect, for a strategy that cannot', async () => {
  const emptied = commitOf(CHAIN, { emptyTop: true });
  await expect(planIn(all, emptied)).rejects.toMatchObject({ code: 'COMMIT_BAD_REQUEST' });
  const broken = { ...copyDown, plan: () => Promise.reject(new TypeError('oops')) };
  await expect(planIn(auto([broken, preserve]), commitOf(CHAIN))).rejects.toThrow(TypeError);
});

it('has no steps of its own: its plans name the strategy that was chosen', () => {
  expect(() => all.steps({} as never, {} as never, null)).toThrow(CommitError);
});
