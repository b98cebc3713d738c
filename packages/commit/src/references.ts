import { type ChainEnvironment, identityKey, identityOf, resolveBacking } from '@downfold/chain';
import { isUrl } from '@downfold/storage';
import { CommitError } from './errors.ts';
import { isLinked, type Layers } from './layers.ts';
import { type CommitPlan, factsIn } from './plan.ts';

/**
 * Before anything is written: each reference that is to be switched leads, from where its overlay lies now, to the file that is to be below it. In a directory
 * that was moved a name from the root leads elsewhere. @throws CommitError `COMMIT_CHANGED`; ChainError when it leads nowhere
 */
export async function assertReferencesLead(
  plan: CommitPlan,
  layers: Layers,
  { backend }: ChainEnvironment,
): Promise<void> {
  for (const { overlay, backing, to } of plan.relinks) {
    const { image } = layers.get(overlay);
    if (backing === null || to === null || isUrl(to.name) || isLinked(image, to)) continue;
    const { path } = factsIn(plan, overlay);
    const found = await resolveBacking(to, path, ['/'], backend);
    const identity = await identityOf(found.path, backend);
    const wanted = layers.get(backing).image.file.identity;
    if (identity !== null && identityKey(identity) === identityKey(wanted)) continue;
    throw new CommitError(
      'COMMIT_CHANGED',
      `${path}: the name '${to.name}', which is to be its backing file's, leads to ${found.path}, and not to ${factsIn(plan, backing).path}; nothing was relinked. Move the images back to where the job was begun, or give it up: downfold abort`,
      { image: path },
    );
  }
}
