import type { CommitPlan } from '@downfold/commit';
import { hostOffset } from '@downfold/units';
import { backend } from './environment.ts';
import { UsageError } from './failure.ts';
import type { StoredPlan } from './plan-schema.ts';

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
  // loaded only now: it would more than double the time that every command takes to start
  const { parsePlan } = await import('./plan-schema.ts');
  const { plan, problem } = parsePlan(value);
  if (plan === null) throw noPlan(problem);
  const { request, images, chainLength } = plan;
  const nodes = images.map(({ node }) => node);
  for (const node of [request.top, request.base])
    if (node !== null && !nodes.includes(node)) throw noPlan(`it has no image '${node}'`);
  if (chainLength > images.length) throw noPlan(`it has no ${chainLength} images`);
  return plan;
}

/** The leaf of a stored plan's chain: the image that the user named. */
export function leafOf({ images, chainLength }: StoredPlan): StoredPlan['images'][number] {
  return images[chainLength - 1] as StoredPlan['images'][number];
}
