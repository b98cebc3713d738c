import { posix } from 'node:path';
import { formatBytes, type LayerFacts } from '@downfold/chain';
import type { BitmapFate, Candidate, CommitPlan, Relink } from '@downfold/commit';
import { isUrl } from '@downfold/storage';
import { near } from '../paths.ts';
import { styled } from './print.ts';
import { table } from './table.ts';
import { wrap } from './wrap.ts';

const COLUMNS = 80;

/** A plan for people, at most 80 columns for names of usual length; `end` is its last line. */
export function humanPlan(plan: CommitPlan, end = 'Nothing was written.'): string {
  const name = namer(plan);
  const { operation } = plan.request;
  const lines = [
    styled('bold', `Plan: ${headline(plan, name)} (${plan.strategy.name})`),
    '',
    imagesTable(plan, name),
    ...(operation === 'commit' ? ['', casesTable(plan)] : []),
    '',
    ...amounts(plan),
    ...shared(plan, name),
    ...sizes(plan, name),
    ...bitmaps(plan, name),
    ...consequences(plan),
  ];
  if (plan.chosen !== null)
    lines.push(
      '',
      ...wrap(`Chosen: ${plan.chosen.why}.`, COLUMNS),
      candidatesTable(plan.chosen.candidates, (text) =>
        text.replaceAll(`${directoryOf(plan)}/`, ''),
      ),
    );
  lines.push(end);
  return lines.join('\n');
}

function headline({ request }: CommitPlan, name: (node: string | null) => string): string {
  const { operation, base, top } = request;
  if (operation === 'commit') return `commit ${name(top)} into ${name(base)}`;
  if (operation === 'stream')
    return base === null
      ? `pull everything into ${name(top)}`
      : `pull all above ${name(base)} into ${name(top)}`;
  return `rebase ${name(top)} onto ${request.absent?.path ?? name(base)}`;
}

function amounts(plan: CommitPlan): readonly string[] {
  const { bytesToCopy, bytesToZero, bytesWrittenAtMost, costs, temporaryBytes } = plan;
  const freed = costs.reduce((sum, cost) => sum + cost.freed, 0);
  const seconds = plan.estimatedSeconds;
  return [
    `To copy ${formatBytes(bytesToCopy)}, to make zero ${formatBytes(bytesToZero)}${seconds === null ? '' : `, in about ${seconds} s`}.`,
    `At most ${formatBytes(bytesWrittenAtMost)} written.`,
    ...(freed > 0 ? [`Up to ${formatBytes(freed)} of host space given back.`] : []),
    ...(temporaryBytes > 0 ? [`Up to ${formatBytes(temporaryBytes)} needed for a while.`] : []),
  ];
}

/** Reflinks, as users know them. */
function shared({ shares }: CommitPlan, name: (node: string | null) => string): readonly string[] {
  if (shares.length === 0) return [];
  const from = shares.map((node) => name(node)).join(', ');
  return [
    `Whole clusters of ${from} are not copied: the file system shares their blocks (reflink).`,
  ];
}

function sizes(plan: CommitPlan, name: (node: string | null) => string): readonly string[] {
  const { base, top, emptyTop } = plan.request;
  const lines: string[] = [];
  if (plan.growBaseTo !== null)
    lines.push(`${name(base)} grows to ${formatBytes(plan.growBaseTo)}.`);
  if (plan.zeroTail !== null)
    lines.push(
      `${formatBytes(plan.zeroTail.length)} past the end of ${name(top)} become explicit zeros in ${name(base)}.`,
    );
  if (emptyTop) lines.push(`${name(top)} is emptied once ${name(base)} holds its data.`);
  return lines;
}

/** What becomes of the bitmaps of base. */
function bitmaps(
  { bitmaps: fates = [], request }: CommitPlan,
  name: (node: string | null) => string,
): readonly string[] {
  const base = name(request.base);
  return fates.flatMap(({ name: bitmap, fate, from }) =>
    wrap(`Bitmap '${bitmap}' of ${base} ${FATES[fate](from.map(name).join(', '))}.`, COLUMNS),
  );
}

const FATES: Readonly<Record<BitmapFate['fate'], (from: string) => string>> = {
  records: () => 'records what is written',
  merged: (from) => `gets what that of ${from} says`,
  created: (from) => `is made, and gets what that of ${from} says`,
  dropped: () => 'is removed',
  inconsistent: () => 'is inconsistent, and stays so',
};

/** What becomes of those outside the chain. */
function consequences(plan: CommitPlan): readonly string[] {
  const lost = new Set(plan.strands);
  const name = (path: string): string => near(directoryOf(plan), path);
  return [
    ...plan.images
      .filter(({ path }) => isUrl(path))
      .map(({ path }) => `${path} lies behind a server: no locks, nobody else may use it.`),
    ...plan.strands.map((path) =>
      styled('red', `${name(path)} loses its meaning: it reads through what changes.`),
    ),
    ...plan.dependents
      .filter(({ path }) => !lost.has(path))
      .map(({ path, through }) => `${name(path)} (over ${name(through)}) reads as before.`),
    ...plan.unreadable.flatMap(({ path, reason }) =>
      wrap(
        `${name(path)} may read through what changes: it cannot be read to find out (${reason}).`,
        COLUMNS,
      ).map((line) => styled('red', line)),
    ),
  ];
}

/** `shorten` takes the directory of the chain out of what is said of its images. */
function candidatesTable(
  candidates: readonly Candidate[],
  shorten: (text: string) => string,
): string {
  return table(
    candidates.map((one) => {
      // what follows is advice for those who asked for this one by name
      const [refused] = one.refused?.split('; ') ?? [];
      if (refused !== undefined) return [`  ${one.strategy}`, 'cannot', shorten(refused)];
      const written = `${formatBytes(one.bytesWritten ?? 0)} written`;
      return [`  ${one.strategy}`, written, priceOf(one)];
    }),
    [1],
    COLUMNS,
  );
}

function priceOf({ temporaryBytes, invalidated }: Candidate): string {
  const images = invalidated === 1 ? 'image' : 'images';
  const lost = invalidated === 0 ? 'no image lost' : `${invalidated} ${images} lost`;
  return temporaryBytes === 0 ? lost : `${lost}, ${formatBytes(temporaryBytes ?? 0)} for a while`;
}

/** Names of nodes. */
function namer(plan: CommitPlan): (node: string | null) => string {
  return (node) => {
    if (node === null) return 'nothing';
    return near(directoryOf(plan), plan.images.find((image) => image.node === node)?.path ?? node);
  };
}

function directoryOf(plan: CommitPlan): string {
  return posix.dirname(plan.images[plan.chainLength - 1]?.path ?? '/');
}

function imagesTable(plan: CommitPlan, name: (node: string | null) => string): string {
  const top = indexOf(plan, plan.request.top);
  const base = indexOf(plan, plan.request.base);
  const chain = plan.images.slice(0, plan.chainLength).reverse();
  const others = plan.images.slice(plan.chainLength);
  const rows = [...chain, ...others].map((image) => [
    name(image.node),
    formatBytes(image.geometry.virtualSize),
    formatBytes(image.allocated),
    roleOf(plan, indexOf(plan, image.node), { base, top }),
    fateOf(plan, image, name),
  ]);
  return table([['IMAGE', 'DISK', 'IN USE', 'ROLE', 'AFTERWARDS'], ...rows], [1, 2], COLUMNS);
}

function indexOf(plan: CommitPlan, node: string | null): number {
  return plan.images.findIndex((image) => image.node === node);
}

function roleOf(
  { request, chainLength, links, images }: CommitPlan,
  index: number,
  at: { readonly base: number; readonly top: number },
): string {
  if (index === at.top) return request.operation === 'commit' ? 'top' : 'receives';
  if (index === at.base) return request.operation === 'commit' ? 'base' : 'new backing';
  if (index >= chainLength) {
    if (request.operation !== 'commit') return 'below it';
    return links[images[index]?.node ?? ''] === request.top ? 'overlay' : 'outside';
  }
  if (index > at.base && index < at.top)
    return request.operation === 'commit' ? 'intermediate' : 'below';
  return index > at.top ? 'overlay' : 'below base';
}

function fateOf(
  plan: CommitPlan,
  image: LayerFacts,
  name: (node: string | null) => string,
): string {
  const { node } = image;
  const relink = plan.relinks.find(({ overlay }) => overlay === node);
  const parts: string[] = [];
  const invalid = plan.invalidates.find((one) => one.node === node);
  if (invalid !== undefined) parts.push(`invalid after ${invalid.after}`);
  else if (plan.preserves.includes(node)) parts.push('reads the same');
  else if (node === plan.request.base && plan.request.operation === 'commit')
    parts.push(`reads as ${name(plan.request.top)}`);
  if (relink !== undefined) parts.push(onWhat(relink, name));
  return parts.join(', ');
}

function onWhat({ backing, to }: Relink, name: (node: string | null) => string): string {
  if (to === null) return 'stands alone';
  return backing === null ? `on ${to.name}, which is not there` : `on ${name(backing)}`;
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
