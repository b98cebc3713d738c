import { journalPath } from '@downfold/commit';
import { type CommitResult, downfold, downfoldJson } from '../tools/cli.ts';
import { checkByQemu, infoByQemu, sameByQemu } from '../tools/qemu.ts';
import { recordsIn } from './journal-file.ts';
import type { KillChain } from './template.ts';
import { describeMoment, type Moment, startAndKill } from './victim.ts';

/** Bytes between two checkpoints of the command line: what a resumed run may copy a second time. */
const EPOCH = 128 << 20;
/** Metadata, journal and output of both runs, above the data. */
const OVERHEAD = 8 << 20;

/** What one kill showed. */
export interface KillFigures {
  /** Where the kill found the job. */
  readonly state: 'not-begun' | 'interrupted' | 'done';
  readonly bytesCopiedAgain: number;
  readonly bytesSkipped: number;
  /** See `Victim`. */
  readonly journal: number | null;
}

/** Kills a commit at `moment`, looks, resumes it, looks again. Rejects with what was wrong. */
export async function tryKill(chain: KillChain, moment: Moment): Promise<KillFigures> {
  await chain.restore();
  const victim = await startAndKill(commitArguments(chain), moment);
  const where = `killed ${describeMoment(moment)}`;
  if (!victim.killed && victim.code !== 0)
    throw new Error(`${where}: it failed before: ${victim.stderr}`);
  await assertReads(chain, where);
  const interrupted = (await recordsIn(journalPath(chain.active))).length > 0;
  const again = interrupted ? ['resume', chain.active] : commitArguments(chain);
  const done = !interrupted && (await relinked(chain));
  const none: CommitResult = { bytesCopied: 0, bytesZeroed: 0, bytesSkippedByResume: 0 };
  const result = done ? none : await downfoldJson<CommitResult>(again);
  await assertReads(chain, `${where}, then resumed`);
  await assertDone(chain, `${where}, then resumed`);
  if (interrupted && victim.written !== null) {
    const total = victim.written + result.bytesCopied;
    if (total > chain.bytesToCopy + EPOCH + OVERHEAD)
      throw new Error(`${where}: both runs wrote ${total} bytes for ${chain.bytesToCopy} of data`);
  }
  return {
    state: done ? 'done' : interrupted ? 'interrupted' : 'not-begun',
    bytesCopiedAgain: result.bytesCopied,
    bytesSkipped: result.bytesSkippedByResume,
    journal: victim.journal,
  };
}

/** Arguments of `downfold` that commit top into base. */
export function commitArguments(chain: KillChain): readonly string[] {
  return ['commit', '-f', 'qcow2', '-b', chain.base, '--top', chain.top, chain.active];
}

async function relinked(chain: KillChain): Promise<boolean> {
  return (await infoByQemu(chain.active, 'qcow2'))['backing-filename'] === 'base.qcow2';
}

async function assertReads(chain: KillChain, where: string): Promise<void> {
  await assertSame(chain.active, chain.activeView, `${where}: active`);
  await assertSame(chain.top, chain.topView, `${where}: top`);
}

async function assertDone(chain: KillChain, where: string): Promise<void> {
  await assertSame(chain.base, chain.topView, `${where}: base`);
  for (const path of [chain.base, chain.top, chain.active]) {
    const fault = await checkByQemu(path);
    if (fault !== '') throw new Error(`${where}: ${path}: ${fault}`);
  }
  const left = await chain.leftovers();
  if (left.length > 0) throw new Error(`${where}: ${left.join(', ')} is still there`);
  if (!(await relinked(chain))) throw new Error(`${where}: active was not relinked`);
  const resumed = await downfold(['resume', chain.active]);
  if (resumed.code === 0) throw new Error(`${where}: there was still something to resume`);
}

async function assertSame(path: string, raw: string, what: string): Promise<void> {
  const difference = await sameByQemu(path, 'qcow2', raw);
  if (difference !== '') throw new Error(`${what} does not read right: ${difference}`);
}
