import type { CommitPlan } from '../plan.ts';
import { UNALLOCATED } from './cells.ts';
import type { Broken, StateCheck } from './check-state.ts';
import type { Model } from './model.ts';
import type { Pool } from './pool.ts';

/** What must be so when a job is done, whether it was interrupted or not. */
export function* brokenAtEnd(
  pool: Pool,
  plan: CommitPlan,
  model: Model,
  check: StateCheck,
): Generator<Broken, void, undefined> {
  if (pool.setting.operation === 'commit') {
    yield* brokenBase(pool, model, check);
    if (pool.setting.client !== undefined && !model.journal.pivoted)
      yield ['end/the-disk-pivoted', 'the disk is still top'];
    yield* brokenMarks(pool, plan, model);
    if (pool.setting.emptyTop) yield* brokenTop(pool, model);
  }
  yield* brokenLinks(pool, plan, model);
}

function* brokenBase(
  pool: Pool,
  { now, journal }: Model,
  { finalBase }: StateCheck,
): Generator<Broken, void, undefined> {
  const disk = pool.disk(journal);
  const topSize = pool.shown[pool.top]?.length ?? 0;
  const size = now.size(pool.base);
  for (const [sector, planned] of finalBase.entries()) {
    const wanted = disk[sector] ?? planned;
    const found = now.shows(pool.base, sector);
    if (sector < size && found === wanted) continue;
    yield [
      sector < topSize ? 'end/base-shows-what-top-showed' : 'end/base-keeps-its-tail',
      `base (${size} sectors) shows ${found} at sector ${sector} and must show ${wanted}`,
    ];
  }
  if (size > finalBase.length)
    yield ['end/base-keeps-its-tail', `base has ${size} sectors and needs ${finalBase.length}`];
}

function* brokenMarks(
  pool: Pool,
  plan: CommitPlan,
  { now }: Model,
): Generator<Broken, void, undefined> {
  for (const { node } of plan.invalidates)
    if (!now.isMarked(pool.indexOf(node)))
      yield ['end/the-invalid-are-marked', `${node} is not marked`];
}

function* brokenTop(pool: Pool, { now }: Model): Generator<Broken, void, undefined> {
  const size = now.size(pool.top);
  for (let sector = 0; sector < size; sector++)
    if (now.cell(pool.top, sector) !== UNALLOCATED)
      yield ['end/top-is-empty', `top is allocated at sector ${sector}`];
}

function* brokenLinks(
  pool: Pool,
  plan: CommitPlan,
  { now }: Model,
): Generator<Broken, void, undefined> {
  for (const image of pool.facts.keys()) {
    const before = pool.initial.link(image);
    const node = pool.nodeOf(image);
    const relink = plan.relinks.find(({ overlay }) => overlay === node);
    const backing = relink?.backing ?? null;
    const wanted = relink === undefined ? before : backing === null ? -1 : pool.indexOf(backing);
    if (now.link(image) !== wanted)
      yield ['end/linked-as-planned', `${node} reads through ${now.link(image)}, not ${wanted}`];
  }
}
