import { expect, it } from 'vitest';
import { asDisk, Bench, makeChain, serve, WHOSE } from './support.ts';

const CANCELLING = [
  { command: 'job-cancel', args: { id: 'j' } },
  { command: 'block-job-cancel', args: { device: 'j' } },
];

it.each(WHOSE.flatMap((whose) => CANCELLING.map((cancelling) => ({ whose, ...cancelling }))))(
  '$command of a pending job, by $whose: when the answer comes it can be dismissed',
  async ({ whose, command, args }) => {
    await using bench = new Bench();
    await makeChain(bench);
    const served = await serve(bench, whose, ...asDisk(bench, 'top.qcow2'));
    await served.execute('block-commit', {
      ...{ 'job-id': 'j', device: 'disk', top: bench.file('mid.qcow2') },
      ...{ 'auto-finalize': false, 'auto-dismiss': false },
    });
    await served.until('BLOCK_JOB_PENDING');
    await served.execute(command, args);
    await served.execute('job-dismiss', { id: 'j' });
    expect(await served.until('null')).toEqual([
      'aborting',
      'BLOCK_JOB_CANCELLED',
      'concluded',
      'null',
    ]);
  },
);
