import type { Step } from '@downfold/commit';
import { planIn, StrategyTestBed, stepsIn } from '@downfold/commit/compliance';
import { expect, it } from 'vitest';
import { active, copyDown, depthFirst, preserve, rebase, staged, stream } from '../src/index.ts';
import { commitOf, images, sectors } from './settings.ts';

const commits = [copyDown, depthFirst, preserve, staged];
const from = (step: Step): string | null => (step.do === 'copy' ? step.from : null);
const to = (step: Step): string | null => (step.do === 'copy' ? step.to : null);
const node = (step: Step): string | null => ('node' in step ? step.node : null);

it.each(commits)(
  '$name copies each sector that top shows above base once, when layers do not overlap',
  async (strategy) => {
    const setting = commitOf(['B ----', 'M@B d---', 'N@M -d--', 'T@N --dz', 'A@T ----']);
    const { bytesToCopy, bytesToZero, cases } = await planIn(strategy, setting);
    expect(cases).toEqual({
      unallocated: 0,
      intermediateOnly: sectors(2),
      several: 0,
      topOnly: sectors(2),
    });
    // what base holds nothing of, M reads as zeros: preserve says so in M
    const saved = strategy === preserve ? sectors(3) : 0;
    expect([bytesToCopy, bytesToZero]).toEqual([sectors(3), sectors(1) + saved]);
  },
);

it('depth-first copies a sector again where the next layer does not shadow it, and one above does', async () => {
  const setting = commitOf(['B -', 'M@B d', 'N@M -', 'T@N d', 'A@T -']);
  expect((await planIn(depthFirst, setting)).bytesToCopy).toBe(sectors(2));
  const copies = (await stepsIn(depthFirst, setting)).filter((step) => step.do === 'copy');
  expect(copies.map(({ from }) => from)).toEqual(['M', 'T']);
  const shadowed = commitOf(['B -', 'M@B d', 'T@M d', 'A@T -']);
  expect((await planIn(depthFirst, shadowed)).bytesToCopy).toBe(sectors(1));
});

it('depth-first gives back what it drained, and leaves what was shadowed', async () => {
  const setting = commitOf(['B ---', 'M@B dd-', 'T@M -dd', 'A@T ---']);
  const gone = (await stepsIn(depthFirst, setting)).flatMap((step) =>
    step.do === 'deallocate' ? [[step.node, step.range.offset, step.range.length]] : [],
  );
  expect(gone).toEqual([
    ['M', 0, sectors(1)],
    ['T', sectors(1), sectors(2)],
  ]);
});

it('depth-first drains units as a whole, so that they can be given back', async () => {
  const setting = commitOf(['B --', 'M@B dd*2', 'T@M -d', 'A@T --']);
  const steps = await stepsIn(depthFirst, setting);
  const ofM = steps.filter((step) => 'range' in step && [from(step), node(step)].includes('M'));
  expect(ofM.map((step) => [step.do, 'range' in step && step.range.length])).toEqual([
    ['copy', sectors(2)],
    ['deallocate', sectors(2)],
  ]);
});

it('depth-first copies what it lifts past a top that ends within a unit with the rest of that unit', async () => {
  // found by the kit on all settings: what M lets show past T's end is lifted into the unit of N at [2, 4), which goes to base with N
  const setting = commitOf(['B --zz*2', 'M@B --*2', 'N@M dd--*2', 'T@N zz-*2', 'R@M ----*2'], {
    emptyTop: true,
    slow: true,
  });
  const steps = await stepsIn(depthFirst, setting);
  const ofN = steps.filter((step) => 'range' in step && [from(step), node(step)].includes('N'));
  expect(ofN.map((step) => [step.do, 'range' in step && step.range.offset])).toEqual([
    ['zero', sectors(3)],
    ['copy', sectors(2)],
    ['deallocate', sectors(2)],
  ]);
  const report = await new StrategyTestBed(depthFirst, { settings: [setting] }).report();
  expect([...report.findings]).toEqual([]);
});

it('depth-first says of each image after what it is lost', async () => {
  const setting = commitOf(['B d', 'M@B d', 'N@M d', 'T@N d', 'A@T -', 'S@B -', 'R@M -', 'Q@R -']);
  const { invalidates, strands } = await planIn(depthFirst, setting);
  expect(invalidates).toEqual([
    { node: 'S', after: 'M.img is drained into base' },
    { node: 'M', after: 'N.img is drained into base' },
    { node: 'R', after: 'N.img is drained into base' },
    { node: 'Q', after: 'N.img is drained into base' },
    { node: 'N', after: 'T.img is drained into base' },
  ]);
  expect(strands).toEqual(['/S.img', '/R.img', '/Q.img']);
});

it('preserve pushes into every reader what it overwrites, and only that', async () => {
  const setting = commitOf(['B ddd', 'M@B d--', 'T@M -d-', 'A@T ---', 'S@B --d'], {
    siblings: 'keep',
  });
  const steps = await stepsIn(preserve, setting);
  const pushes = steps.flatMap((step) =>
    step.do === 'copy' && step.to !== 'B' ? [`${step.to} ${step.range.offset / 512}`] : [],
  );
  expect(pushes.sort()).toEqual(['M 1', 'S 0', 'S 1']);
  const { writes, invalidates, bytesToCopy } = await planIn(preserve, setting);
  expect([...writes].sort()).toEqual(['A', 'B', 'M', 'S', 'T']);
  expect([invalidates, bytesToCopy]).toEqual([[], sectors(5)]);
});

it('preserve pushes units as a whole, each once', async () => {
  const setting = commitOf(['B dddd', 'M@B ----*4', 'T@M -d-d', 'A@T ----']);
  const pushes = (await stepsIn(preserve, setting)).filter((step) => to(step) === 'M');
  expect(pushes.map((step) => 'range' in step && step.range)).toEqual([
    { offset: 0, length: sectors(4) },
  ]);
  expect((await planIn(preserve, setting)).bytesToCopy).toBe(sectors(2 + 4));
});

it.each(commits)(
  '$name copies no more than half of checkpointBytes between two checkpoints',
  async (strategy) => {
    const lines = ['B dddddddd', 'M@B --------', 'T@M dddddddd', 'S@B --------', 'R@B --------'];
    const setting = commitOf(lines, { checkpointSectors: 8 });
    const between = [0];
    for (const step of await stepsIn(strategy, setting)) {
      if (step.do === 'checkpoint') between.push(0);
      if (step.do === 'copy') between.push((between.pop() ?? 0) + step.range.length);
    }
    expect(Math.max(...between)).toBe(sectors(4));
  },
);

it.each(commits)('$name leaves references alone that name base already', async (strategy) => {
  const { relinks } = await planIn(strategy, commitOf(['B d', 'T@B d', 'A@T -', 'Q@T -']));
  expect(relinks.map(({ overlay }) => overlay)).toEqual(['A', 'Q']);
});

it('staged needs the old content beside the new one for a while', async () => {
  const { temporaryBytes } = await planIn(staged, commitOf(['B dd-', 'T@B dzd', 'A@T ---']));
  expect(temporaryBytes).toBe(sectors(2));
});

it('staged says of a base that has no second mapping why it cannot, and what to do', async () => {
  const plan = planIn(staged, commitOf(['B d', 'T@B d', 'A@T -'], { stages: false }));
  await expect(plan).rejects.toMatchObject({ code: 'COMMIT_UNSUPPORTED' });
  await expect(plan).rejects.toThrow('use another strategy');
});

it.each(commits)('$name grows a short base, and never shrinks a long one', async (strategy) => {
  const short = await planIn(strategy, commitOf(['B d', 'T@B --', 'A@T --']));
  expect(short.growBaseTo).toBe(sectors(2));
  const long = await planIn(strategy, commitOf(['B dd', 'T@B d', 'A@T -']));
  expect(long.growBaseTo).toBeNull();
});

it.each(commits)(
  '$name zeroes in base what an overlay longer than top reads as zeros',
  async (strategy) => {
    const zeroed = { offset: sectors(1), length: sectors(2) };
    const longer = await planIn(strategy, commitOf(['B dddd', 'T@B d', 'A@T ---']));
    expect(longer.zeroTail).toEqual(zeroed);
    const other = await planIn(strategy, commitOf(['B dddd', 'T@B d', 'A@T -', 'Q@T ---']));
    expect(other.zeroTail).toEqual(zeroed);
    const none = await planIn(strategy, commitOf(['B dddd', 'T@B dd', 'A@T -']));
    expect(none.zeroTail).toBeNull();
  },
);

it.each(commits)('$name refuses to empty a top that others read through', async (strategy) => {
  const setting = commitOf(['B d', 'T@B d', 'Q@T -'], { emptyTop: true });
  await expect(planIn(strategy, setting)).rejects.toMatchObject({ code: 'COMMIT_BAD_REQUEST' });
});

it.each(commits)('$name loses nobody when there is nothing to commit', async (strategy) => {
  const plan = await planIn(strategy, commitOf(['B dd', 'M@B --', 'T@M --', 'A@T --', 'S@B --']));
  expect([plan.invalidates, plan.strands, plan.bytesToCopy]).toEqual([[], [], 0]);
});

it('a stream pulls what lies between, and says zeros where they hide base', async () => {
  const lines = ['B ddd', 'M@B d-z', 'T@M ---'];
  const down = { ...commitOf(lines), operation: 'stream' } as const;
  const steps = (await stepsIn(stream, down)).filter((step) => 'range' in step);
  expect(steps.map((step) => [step.do, step.range.offset])).toEqual([
    ['copy', 0],
    ['zero', sectors(2)],
  ]);
  const alone = await planIn(stream, { ...down, base: null });
  expect([alone.bytesToCopy, alone.bytesToZero]).toEqual([sectors(2), 0]);
  expect(alone.relinks).toMatchObject([{ overlay: 'T', backing: null, to: null }]);
});

it('a stream refuses when there is nothing between', async () => {
  const setting = { ...commitOf(['B d', 'T@B -']), operation: 'stream' } as const;
  await expect(planIn(stream, setting)).rejects.toMatchObject({ code: 'COMMIT_BAD_REQUEST' });
});

it('a rebase looks only where different layers decide, and not at all when the user vouches', async () => {
  const setting = {
    ...commitOf([]),
    images: images('B ddd', 'M@B d-z', 'T@M --d', 'N@B --d'),
    operation: 'rebase',
    base: 'N',
  } as const;
  const { bytesToCopy, preserves } = await planIn(rebase, setting);
  // sector 0: M against B; sector 1: B against B; sector 2: top's own
  expect(bytesToCopy).toBe(sectors(1));
  expect(preserves).toContain('T');
  const zeros = images('B dd', 'M@B zz', 'T@M --', 'N@B zd');
  // zeros are zeros, whoever says so
  expect((await planIn(rebase, { ...setting, images: zeros })).bytesToCopy).toBe(sectors(1));
  const long = images('B ddd', 'M@B ddd', 'T@M ---', 'N@B sss');
  const compared = await stepsIn(rebase, { ...setting, images: long });
  // what is next to each other is compared at once
  expect(compared.filter((step) => step.do === 'copy')).toHaveLength(1);
  const vouched = await planIn(rebase, { ...setting, unsafe: true });
  expect(vouched.bytesToCopy).toBe(0);
  expect(vouched.preserves).not.toContain('T');
});

it('active may write what the client of the disk wrote meanwhile, and no plan knows', async () => {
  // found by the kit on all settings: there was nothing to copy until the client wrote
  const setting = commitOf(['L d', 'B@L zz', 'T@B --', 'S@B d'], {
    checkpointSectors: 2,
    batch: 1,
    client: { sector: 0, after: 1 },
  });
  expect((await planIn(active, setting)).bytesWrittenAtMost).toBe(2 * 1024);
  const report = await new StrategyTestBed(active, { settings: [setting] }).report();
  expect([report.settings, [...report.findings]]).toEqual([1, []]);
});
