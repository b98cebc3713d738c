import { open, readFile } from 'node:fs/promises';
import type { CommitPlan } from '@downfold/commit';
import { z } from 'zod';
import { UsageError } from './failure.ts';

const bytes = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const range = z.strictObject({ offset: bytes, length: bytes });
const reference = z.strictObject({ name: z.string(), format: z.string().nullable() });
const node = z.string();

const image = z.strictObject({
  node,
  path: z.string().startsWith('/'),
  format: z.string(),
  identity: z.strictObject({ device: z.string(), inode: z.string() }),
  geometry: z.strictObject({
    virtualSize: bytes,
    clusterSize: bytes,
    allocationGranularity: bytes,
  }),
  backing: reference.nullable(),
  mark: z
    .strictObject({
      state: z.enum(['invalid', 'superseded', 'mixed']),
      job: z.string(),
      date: z.string(),
    })
    .nullable(),
  fingerprint: z.string(),
  fileLength: bytes,
  allocated: bytes,
  modified: z.string(),
});

const plan = z.strictObject({
  planVersion: z.literal(1),
  strategy: z.strictObject({ name: z.string(), version: z.number() }),
  chosen: z
    .strictObject({ why: z.string(), candidates: z.array(z.record(z.string(), z.unknown())) })
    .nullable(),
  request: z.strictObject({
    operation: z.enum(['commit', 'stream', 'rebase']),
    base: node.nullable(),
    top: node,
    emptyTop: z.boolean(),
    siblings: z.enum(['refuse', 'invalidate', 'keep']),
    keepUndo: z.boolean(),
    unsafe: z.boolean(),
    checkpointBytes: bytes,
  }),
  images: z.array(image).min(1),
  chainLength: z.number().int().positive(),
  links: z.record(z.string(), node.nullable()),
  writes: z.array(node),
  reads: z.array(node),
  preserves: z.array(node),
  invalidates: z.array(z.strictObject({ node, after: z.string() })),
  strands: z.array(z.string()),
  dependents: z.array(z.strictObject({ path: z.string(), through: z.string() })),
  pools: z.array(z.string()),
  relinks: z.array(
    z.strictObject({
      overlay: node,
      backing: node.nullable(),
      from: reference.nullable(),
      to: reference.nullable(),
    }),
  ),
  growBaseTo: bytes.nullable(),
  zeroTail: range.nullable(),
  cases: z.strictObject({
    unallocated: bytes,
    intermediateOnly: bytes,
    several: bytes,
    topOnly: bytes,
  }),
  bytesToCopy: bytes,
  bytesToZero: bytes,
  bytesWrittenAtMost: bytes,
  costs: z.array(z.strictObject({ node, written: bytes, freed: bytes })),
  temporaryBytes: bytes,
  estimatedSeconds: z.number().nullable(),
});

/** Writes a plan for review, and for `--plan`. Never over an existing file. */
export async function writePlan(path: string, value: CommitPlan): Promise<void> {
  await using file = await open(path, 'wx');
  await file.writeFile(`${JSON.stringify(value, null, 4)}\n`);
}

/** Reads a plan that `--plan-out` wrote. @throws UsageError that names what is wrong with it */
export async function readPlan(path: string): Promise<CommitPlan> {
  const text = await readFile(path, 'utf8');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new UsageError(`'${path}' is no plan: ${cause.message}`);
  }
  const parsed = plan.safeParse(value);
  if (!parsed.success)
    throw new UsageError(`'${path}' is no plan: ${z.prettifyError(parsed.error)}`);
  const found = parsed.data as unknown as CommitPlan;
  const known = new Set(found.images.map((one) => one.node));
  const named = [found.request.top, ...found.writes, ...found.reads, ...Object.keys(found.links)];
  const stranger = named.find((one) => !known.has(one));
  if (stranger !== undefined || found.chainLength > found.images.length)
    throw new UsageError(
      `'${path}' is no plan: it has no image '${stranger ?? found.chainLength}'`,
    );
  return found;
}
