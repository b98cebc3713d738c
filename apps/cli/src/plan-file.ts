import type { LayerFacts } from '@downfold/chain';
import type { CommitPlan } from '@downfold/commit';
import { hostOffset } from '@downfold/units';
import { z } from 'zod';
import { backend } from './environment.ts';
import { UsageError } from './failure.ts';

const absolutePath = z.string().startsWith('/');

/** What of a plan is needed to plan once more; all the rest is compared with what comes of that. */
const schema = z.looseObject({
  planVersion: z.literal(1),
  strategy: z.looseObject({ name: z.string() }),
  request: z.looseObject({
    operation: z.enum(['commit', 'stream', 'rebase']),
    base: z.string().nullable(),
    top: z.string(),
    emptyTop: z.boolean(),
    siblings: z.enum(['refuse', 'invalidate', 'keep']),
    keepUndo: z.boolean(),
    unsafe: z.boolean(),
    checkpointBytes: z.number().int().positive().max(Number.MAX_SAFE_INTEGER),
  }),
  images: z
    .array(z.looseObject({ node: z.string(), path: absolutePath, format: z.string() }))
    .min(1),
  chainLength: z.number().int().positive(),
  pools: z.array(absolutePath),
});

/** A plan as it was found in a file: nothing is known of what is not named here. */
export interface StoredPlan extends Pick<CommitPlan, 'chainLength' | 'pools' | 'request'> {
  readonly strategy: Pick<CommitPlan['strategy'], 'name'>;
  readonly images: readonly Pick<LayerFacts, 'node' | 'path' | 'format'>[];
}

/** Writes a plan for review, and for `--plan`. Never over an existing file. */
export async function writePlan(path: string, plan: CommitPlan): Promise<void> {
  await using file = await backend.create(path, { secret: false });
  const text = `${JSON.stringify(plan, null, 4)}\n`;
  await file.write(hostOffset(0), new TextEncoder().encode(text), { what: 'plan' });
}

/** Reads what `--plan-out` wrote. @throws UsageError that says what is wrong with it */
export async function readPlan(path: string): Promise<StoredPlan> {
  await using file = await backend.open(path, 'read');
  const bytes = new Uint8Array(await file.length());
  await file.read(hostOffset(0), bytes);
  const noPlan = (why: string): UsageError => new UsageError(`'${path}' is no plan: ${why}`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw noPlan(cause.message);
  }
  const { success, data, error } = schema.safeParse(value);
  if (!success) throw noPlan(z.prettifyError(error));
  const { request, images, chainLength } = data;
  const nodes = images.map(({ node }) => node);
  for (const node of [request.top, request.base])
    if (node !== null && !nodes.includes(node)) throw noPlan(`it has no image '${node}'`);
  if (chainLength > images.length) throw noPlan(`it has no ${chainLength} images`);
  return data as unknown as StoredPlan;
}

/** The leaf of a stored plan's chain: the image that the user named. */
export function leafOf({ images, chainLength }: StoredPlan): StoredPlan['images'][number] {
  return images[chainLength - 1] as StoredPlan['images'][number];
}
