import { markdownTable } from '../tools/docs.ts';
import type { Count } from './count.ts';
import type { Survey } from './survey.ts';

const HEAD = [
  'operation',
  'calls',
  'crash states',
  'wrong',
  '`kill -9` points',
  'wrong',
  'lost after success was reported',
];

/** The counts, QEMU's above ours. */
export function tableOf({ qemu, ours }: Survey, version: string): string {
  return markdownTable(HEAD, [
    ...qemu.map((count) => rowOf(`QEMU ${version}: ${count.operation}`, count)),
    ...ours.map((count) => rowOf(`Downfold: ${count.operation}`, count)),
  ]);
}

function rowOf(
  name: string,
  { calls, states, bad, kills, badKills, ...count }: Count,
): readonly string[] {
  const lost = count.lostAfterSuccess ? '**yes**' : 'no';
  return [name, String(calls), String(states), marked(bad), String(kills), marked(badKills), lost];
}

function marked(count: number): string {
  return count === 0 ? '0' : `**${count}**`;
}
