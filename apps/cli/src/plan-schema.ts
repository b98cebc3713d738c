import type { LayerFacts } from '@downfold/chain';
import type { CommitPlan, Unreadable } from '@downfold/commit';
import { z } from 'zod';

const absolutePath = z.string().startsWith('/');

/** What of a plan is needed to plan once more; all the rest is compared with what comes of that. */
const schema = z.looseObject({
  planVersion: z.literal(1),
  strategy: z.looseObject({ name: z.string() }),
  request: z.looseObject({
    operation: z.enum(['commit', 'stream', 'rebase']),
    base: z.string().nullable(),
    absent: z.looseObject({ path: absolutePath, format: z.string() }).optional(),
    baseName: z.string().optional(),
    top: z.string(),
    emptyTop: z.boolean(),
    siblings: z.enum(['refuse', 'invalidate', 'keep']),
    keepUndo: z.boolean(),
    bitmaps: z.enum(['merge', 'keep', 'drop']).optional(),
    unsafe: z.boolean(),
    checkpointBytes: z.number().int().positive().max(Number.MAX_SAFE_INTEGER),
  }),
  images: z
    .array(
      z.looseObject({
        node: z.string(),
        path: absolutePath,
        format: z.string(),
        modified: z.string(),
      }),
    )
    .min(1),
  chainLength: z.number().int().positive(),
  unreadable: z.array(z.looseObject({ path: z.string() })),
  pools: z.array(absolutePath),
});

/** A plan as it was found in a file: nothing is known of what is not named here. */
export interface StoredPlan extends Pick<CommitPlan, 'chainLength' | 'pools' | 'request'> {
  readonly strategy: Pick<CommitPlan['strategy'], 'name'>;
  readonly unreadable: readonly Pick<Unreadable, 'path'>[];
  readonly images: readonly Pick<LayerFacts, 'node' | 'path' | 'format' | 'modified'>[];
}

/** A plan, or what is wrong with it. */
export function parsePlan(
  value: unknown,
):
  | { readonly plan: StoredPlan; readonly problem: null }
  | { readonly plan: null; readonly problem: string } {
  const { success, data, error } = schema.safeParse(value);
  return success
    ? { plan: data as unknown as StoredPlan, problem: null }
    : { plan: null, problem: z.prettifyError(error) };
}
