import { posix } from 'node:path';
import { type ChainEnvironment, factsOf, type LayerFacts, openLayer } from '@downfold/chain';
import { CommitError } from './errors.ts';
import { positionOf, runSteps } from './execute.ts';
import type { Journal } from './journal.ts';
import { openLayers } from './layers.ts';
import type { CommitResult, EngineParts, Job, RunOptions } from './parts.ts';
import type { CommitPlan } from './plan.ts';
import type { CommitStrategy } from './strategy.ts';

/** Goes on with a job from its journal. Owns the journal. */
export async function resumeJob(
  parts: EngineParts,
  environment: ChainEnvironment,
  open: Journal,
  strategyFor: (plan: CommitPlan) => CommitStrategy,
  options: RunOptions,
): Promise<CommitResult> {
  await using journal = open;
  const started = parts.clock.now();
  assertOrphan(parts, journal);
  const switching = journal.records.some(({ type }) => type === 'SWITCH' || type === 'DONE');
  const stored = journal.intent.plan;
  const plan = await foundAgain(stored, posix.dirname(journal.path), parts, environment, switching);
  const job: Job = {
    parts,
    environment: { ...environment, policy: { ...environment.policy, allowMarked: true } },
    plan,
    strategy: strategyFor(stored),
    options,
  };
  await using layers = await openLayers(plan, job.environment);
  await journal.append({ type: 'RESUMED', owner: parts.owner });
  if (!journal.records.some(({ type }) => type === 'INVALIDATES'))
    await journal.append({ type: 'INVALIDATES', nodes: plan.invalidates.map(({ node }) => node) });
  // what the crash left counted but unreferenced is given back before anything is written
  for (const node of layers.written)
    await layers.get(node).image.reclaimLeaks({ signal: options.signal });
  return await runSteps(job, layers, journal, positionOf(journal.records), started);
}

function assertOrphan(parts: EngineParts, journal: Journal): void {
  let { owner } = journal.intent;
  for (const record of journal.records) if (record.type === 'RESUMED') owner = record.owner;
  const mine = owner.pid === parts.owner.pid && owner.bootId === parts.owner.bootId;
  if (!mine && parts.isAlive(owner))
    throw new CommitError(
      'COMMIT_LIVE_OWNER',
      `${journal.path}: process ${owner.pid} on ${owner.host} still runs this job`,
      { journal: journal.path, pid: owner.pid },
    );
}

/**
 * The plan with its images where they are now. A journal may be read on another machine: the directory and the device number may differ;
 * inode, format, sizes and, while they are still needed as sources, length and time of change must not.
 */
async function foundAgain(
  plan: CommitPlan,
  directory: string,
  parts: EngineParts,
  environment: ChainEnvironment,
  switching: boolean,
): Promise<CommitPlan> {
  const images: LayerFacts[] = [];
  for (const then of plan.images) {
    const path = posix.resolve(directory, then.path);
    const now = await lookAgain({ ...then, path }, parts, environment);
    const changed = differenceOf(plan, then, now, switching);
    if (changed !== null)
      throw new CommitError(
        'COMMIT_CHANGED',
        `${path}: ${changed} since the commit was interrupted; it is not safe to go on`,
        { image: path },
      );
    images.push({ ...then, path, identity: now.identity });
  }
  return { ...plan, images };
}

async function lookAgain(
  then: LayerFacts,
  parts: EngineParts,
  environment: ChainEnvironment,
): Promise<LayerFacts> {
  const { identity } = await parts.backend.facts(then.path);
  const policy = { ...environment.policy, allowMarked: true };
  const layer = await openLayer({ ...then, identity }, 'read', { ...environment, policy });
  await using image = layer.image;
  return await factsOf(then.node, then.path, image, parts.backend);
}

/** What is different in a way that forbids to go on; null: nothing. */
function differenceOf(
  plan: CommitPlan,
  then: LayerFacts,
  now: LayerFacts,
  switching: boolean,
): string | null {
  const { base, top } = plan.request;
  if (then.identity.inode !== now.identity.inode) return 'another file has its name';
  const sizes = [
    then.geometry.virtualSize,
    ...(then.node === base && plan.growBaseTo !== null ? [plan.growBaseTo] : []),
  ];
  if (!sizes.includes(now.geometry.virtualSize))
    return `its virtual size changed to ${now.geometry.virtualSize}`;
  const relink = plan.relinks.find(({ overlay }) => overlay === then.node);
  const names = [then.backing?.name, relink?.to.name];
  if (!names.includes(now.backing?.name))
    return `its backing file changed to '${now.backing?.name}'`;
  const chain = plan.images.slice(0, plan.chainLength);
  const index = (node: string): number => chain.findIndex((one) => one.node === node);
  const isSource = index(then.node) > index(base) && index(then.node) <= index(top);
  if (switching || !isSource) return null;
  if (then.fileLength !== now.fileLength)
    return `its length changed from ${then.fileLength} to ${now.fileLength}`;
  if (then.modified !== now.modified) return 'it was written to';
  return null;
}
