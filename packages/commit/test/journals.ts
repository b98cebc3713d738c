import { memoryBackend } from '@downfold/storage-memory';
import { byteLength, hostOffset } from '@downfold/units';
import type { CommitPlan, JournalRecord } from '../src/index.ts';
import { createJournal } from '../src/journal.ts';

const owner = { host: 'here', bootId: 'b1', pid: 1 };

const plan: CommitPlan = {
  planVersion: 1,
  strategy: { name: 'plain', version: 1 },
  chosen: null,
  request: {
    operation: 'commit',
    base: 'l0',
    top: 'l1',
    emptyTop: false,
    siblings: 'refuse',
    keepUndo: false,
    unsafe: false,
    checkpointBytes: byteLength(1 << 20),
  },
  images: [],
  chainLength: 2,
  links: { l0: null, l1: 'l0' },
  writes: ['l0'],
  reads: ['l1'],
  preserves: ['l1'],
  invalidates: [],
  strands: [],
  dependents: [],
  unreadable: [],
  pools: [],
  shares: [],
  relinks: [],
  growBaseTo: null,
  zeroTail: null,
  cases: { unallocated: 0, intermediateOnly: 0, several: 0, topOnly: 512 },
  bytesToCopy: 512,
  bytesToZero: 0,
  bytesWrittenAtMost: 1024,
  costs: [],
  temporaryBytes: 0,
  estimatedSeconds: null,
};

/** The first record of a journal. */
export const someIntent: Extract<JournalRecord, { type: 'INTENT' }> = {
  type: 'INTENT',
  format: 1,
  job: 'a job named Zoë',
  owner,
  plan,
};

/** A journal with a record of every kind. */
export const someRecords: readonly JournalRecord[] = [
  someIntent,
  { type: 'INVALIDATES', nodes: ['l0'] },
  {
    type: 'PROGRESS',
    cursor: { phase: 'copy', offset: 512 },
    copied: 512,
    zeroed: 0,
    stagings: {},
  },
  { type: 'RESUMED', owner: { ...owner, pid: 2 } },
  { type: 'PUBLISH', node: 'l0' },
  { type: 'SWITCH', overlay: 'l1', from: null, to: { name: 'a\nb', format: 'raw' } },
  { type: 'FAILED', owner, image: '/disk.toy' },
  { type: 'ABORT' },
  { type: 'DONE', deletes: [] },
];

/** The bytes of a journal with these records, as the engine writes them. */
export async function journalBytes(records: readonly JournalRecord[]): Promise<Uint8Array> {
  const backend = memoryBackend();
  const [first, ...others] = records;
  await using journal = await createJournal(backend, '/journal', first as typeof someIntent);
  for (const record of others) await journal.append(record);
  await using storage = await backend.open('/journal', 'read');
  const bytes = new Uint8Array(await storage.length());
  await storage.read(hostOffset(0), bytes);
  return bytes;
}
