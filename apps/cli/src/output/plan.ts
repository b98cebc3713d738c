import { posix } from 'node:path';
import { formatBytes, type LayerFacts } from '@downfold/chain';
import type { CommitPlan } from '@downfold/commit';
import { styled } from './print.ts';
import { table } from './table.ts';

/** A plan for people, at most 80 columns for names of usual length. */
export function humanPlan(plan: CommitPlan): string {
  const name = namer(plan);
  const { base, top, emptyTop } = plan.request;
  const lines = [
    styled('bold', `Plan: commit ${name(top)} into ${name(base)} (${plan.strategy.name})`),
    '',
    imagesTable(plan, name),
    '',
    casesTable(plan),
    '',
    `To copy ${formatBytes(plan.bytesToCopy)}, to make zero ${formatBytes(plan.bytesToZero)}; at most ${formatBytes(plan.bytesWrittenAtMost)} written.`,
  ];
  if (plan.growBaseTo !== null)
    lines.push(`${name(base)} grows to ${formatBytes(plan.growBaseTo)}.`);
  if (plan.zeroTail !== null)
    lines.push(
      `${formatBytes(plan.zeroTail.length)} past the end of ${name(top)} become explicit zeros in ${name(base)}.`,
    );
  if (emptyTop) lines.push(`${name(top)} is emptied once ${name(base)} holds its data.`);
  for (const path of plan.strands)
    lines.push(styled('red', `${path} loses its meaning: it reads through what changes.`));
  lines.push('Nothing was written.');
  return lines.join('\n');
}

/** Names of nodes, relative to the directory of the leaf. */
function namer(plan: CommitPlan): (node: string) => string {
  const directory = posix.dirname(plan.images[plan.chainLength - 1]?.path ?? '/');
  return (node) => {
    const path = plan.images.find((image) => image.node === node)?.path ?? node;
    const name = posix.relative(directory, path);
    return name.startsWith('..') ? path : name;
  };
}

function imagesTable(plan: CommitPlan, name: (node: string) => string): string {
  const top = indexOf(plan, plan.request.top);
  const base = indexOf(plan, plan.request.base);
  const chain = plan.images.slice(0, plan.chainLength).reverse();
  const others = plan.images.slice(plan.chainLength);
  const rows = [...chain, ...others].map((image) => [
    name(image.node),
    formatBytes(image.geometry.virtualSize),
    formatBytes(image.allocated),
    roleOf(indexOf(plan, image.node), { base, top, chain: plan.chainLength }),
    fateOf(plan, image, name),
  ]);
  return table([['IMAGE', 'DISK', 'IN USE', 'ROLE', 'AFTERWARDS'], ...rows], [1, 2]);
}

function indexOf(plan: CommitPlan, node: string): number {
  return plan.images.findIndex((image) => image.node === node);
}

function roleOf(index: number, at: { base: number; top: number; chain: number }): string {
  if (index === at.top) return 'top';
  if (index === at.base) return 'base';
  if (index > at.base && index < at.top) return 'intermediate';
  return index > at.top ? 'overlay' : 'below base';
}

function fateOf(plan: CommitPlan, image: LayerFacts, name: (node: string) => string): string {
  const { node } = image;
  const relink = plan.relinks.find(({ overlay }) => overlay === node);
  const parts: string[] = [];
  const invalid = plan.invalidates.find((one) => one.node === node);
  if (invalid !== undefined) parts.push(`invalid after ${invalid.after}`);
  else if (plan.preserves.includes(node)) parts.push('reads the same');
  else if (node === plan.request.base) parts.push(`reads as ${name(plan.request.top)}`);
  if (relink !== undefined) parts.push(`backed by ${name(relink.backing)}`);
  return parts.join(', ');
}

function casesTable({ cases }: CommitPlan): string {
  return table(
    [
      ['1', formatBytes(cases.unallocated), 'nothing above base: stays'],
      [
        '2',
        formatBytes(cases.intermediateOnly),
        'only in intermediates: the uppermost goes to base',
      ],
      ['3', formatBytes(cases.several), 'in top and in intermediates: that of top goes to base'],
      ['4', formatBytes(cases.topOnly), 'only in top: goes to base'],
    ].map(([number = '', bytes = '', what = '']) => [`  case ${number}`, bytes, what]),
    [1],
  );
}
