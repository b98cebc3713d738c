import {
  type ChainEnvironment,
  type ChainLayer,
  type LayerFacts,
  type OpenChain,
  openChain,
  resolveBacking,
  rootsFor,
} from '@downfold/chain';
import { leafOf } from './journal.ts';
import type { CommitPlan } from './plan.ts';

/** Whether something lies below the lowest image of a plan: that of a disk in use begins where the job does. */
export function hasFoundation({ images, links, request }: CommitPlan): boolean {
  const lowest = images[0] as LayerFacts;
  return request.operation !== 'rebase' && lowest.backing !== null && links[lowest.node] === null;
}

/** Whether an image is the one that a job only stands on: it stays as it is for the job, but for what it reads through to. */
export function isFoundation(plan: CommitPlan, { node }: Pick<LayerFacts, 'node'>): boolean {
  const { images, request, writes, reads, invalidates } = plan;
  return (
    request.operation === 'stream' &&
    node === request.base &&
    node === images[0]?.node &&
    ![...writes, ...reads, ...invalidates.map((one) => one.node)].includes(node)
  );
}

/** Opens what the lowest image of a plan reads through to; where nobody else has it open. Null: nothing, or the plan has all of it. */
export async function openFoundation(
  plan: CommitPlan,
  { facts, image }: ChainLayer,
  environment: ChainEnvironment,
): Promise<OpenChain | null> {
  if (!hasFoundation(plan) || image.backing === null) return null;
  const roots = await rootsFor(leafOf(plan), environment);
  const at = await resolveBacking(image.backing, facts.path, roots, environment.backend);
  // another job's journal may be about it, and what that marked stays below
  const policy = { ...environment.policy, roots, allowMarked: true };
  return openChain(at.path, at.format, { ...environment, policy });
}
