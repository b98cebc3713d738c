import { formatBytes } from '@downfold/chain';
import type { CommitResult } from '@downfold/commit';
import { directoryOf, near } from '../paths.ts';

const DONE = {
  commit: 'Image committed.',
  stream: 'Image streamed.',
  rebase: 'Image rebased.',
} as const;

/** What a job did, in a few lines; the first is qemu-img's. `why`: why `auto` took this strategy. */
export function humanResult(result: CommitResult, file: string, why: string | null = null): string {
  const name = (path: string): string => near(directoryOf(file), path);
  const { bytesCopied, bytesZeroed, bytesSkippedByResume, seconds } = result;
  const moved = [`${formatBytes(bytesCopied)} copied`];
  if (bytesZeroed > 0) moved.push(`${formatBytes(bytesZeroed)} made zero`);
  const lines = [DONE[result.operation], `  ${moved.join(', ')}, in ${seconds.toFixed(2)} s`];
  if (bytesSkippedByResume > 0)
    lines.push(`  ${formatBytes(bytesSkippedByResume)} were done before and not copied again`);
  if (why !== null) lines.push(`  chosen: ${why}`);
  if (result.verified) lines.push('  verified: what was written reads as it must');
  for (const { image, backing } of result.relinked)
    lines.push(
      backing === null
        ? `  ${name(image)} stands alone now`
        : `  ${name(image)} is now backed by ${backing}`,
    );
  if (result.bytesKept !== undefined)
    lines.push(
      `  it keeps ${formatBytes(result.bytesKept)} that were written since the job was interrupted, and are not in the base`,
    );
  const kept = result.invalidated.filter((path) => !result.deleted.includes(path));
  for (const path of kept) {
    const failed = result.unmarked.find(({ image }) => image === path);
    const note = failed === undefined ? 'marked so' : `not marked: ${failed.why}`;
    lines.push(`  ${name(path)} is no longer valid (${note})`);
  }
  for (const { path } of result.unreadable)
    lines.push(`  ${name(path)} could not be read, and may have read through what changed`);
  for (const path of result.deleted) lines.push(`  ${name(path)} is deleted`);
  for (const { image, why } of result.undeleted)
    lines.push(`  ${name(image)} could not be deleted: ${why}`);
  return lines.join('\n');
}
