import { expect, it } from 'vitest';
import { asDisk, Bench, makeChain, type Served, serve, WHOSE, type Whose } from './support.ts';

async function served(bench: Bench, whose: Whose, file: string): Promise<Served> {
  await makeChain(bench);
  return serve(bench, whose, ...asDisk(bench, file));
}

it.each(
  WHOSE.flatMap((whose) => [
    { whose, what: 'has no backing file', file: 'base.qcow2', base: {} },
    { whose, what: 'stands on base already', file: 'top.qcow2', base: { base: 'mid.qcow2' } },
  ]),
)('a stream into a disk that $what, by $whose, is a job that changes nothing', async (of) => {
  const { whose, file, base } = of;
  await using bench = new Bench();
  const daemon = await served(bench, whose, file);
  const stream = { 'job-id': 's', device: 'disk', 'auto-finalize': false, ...base };
  await daemon.execute('block-stream', stream);
  await daemon.until('BLOCK_JOB_PENDING');
  expect(await daemon.execute('query-block-jobs')).toMatchObject([
    { type: 'stream', status: 'pending', len: 0, offset: 0 },
  ]);
  await daemon.execute('job-cancel', { id: 's' });
  await daemon.until('null');
  await daemon.execute('block-stream', { ...stream, 'auto-finalize': true });
  expect(await daemon.until('null')).toEqual([
    'created',
    'running',
    'waiting',
    'pending',
    'BLOCK_JOB_COMPLETED',
    'concluded',
    'null',
  ]);
});

it.each(WHOSE)('who is not there is told so, by %s', async (whose) => {
  await using bench = new Bench();
  const daemon = await served(bench, whose, 'top.qcow2');
  const job = { 'job-id': 'j', device: 'nope' };
  await expect(daemon.execute('block-stream', job)).rejects.toMatchObject({
    code: 'GenericError',
    message: "Cannot find device='nope' nor node-name='nope'",
  });
  await expect(daemon.execute('block-commit', job)).rejects.toMatchObject({
    code: 'DeviceNotFound',
    message: "Device 'nope' not found",
  });
});
