import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { clock, isAlive, newJobId, thisProcess } from '../src/index.ts';

it('this process is alive, and one of the same id that started at another time is not it', () => {
  const me = thisProcess();
  expect(isAlive(me)).toBe(true);
  expect(isAlive({ ...me, started: '1' })).toBe(false);
});

it('of another boot or another machine nothing is known: gone', () => {
  const me = thisProcess();
  expect(isAlive({ ...me, bootId: 'another' })).toBe(false);
  expect(isAlive({ ...me, host: 'another' })).toBe(false);
});

it('a process that has ended is gone', async () => {
  const child = spawn(process.execPath, ['--version'], { stdio: 'ignore' });
  const { pid = 0 } = child;
  await once(child, 'close');
  const { host, bootId } = thisProcess();
  expect(isAlive({ host, bootId, pid })).toBe(false);
});

it('sleep ends with the reason of its signal', async () => {
  const reason = new Error('enough');
  await expect(clock.sleep(60_000, AbortSignal.abort(reason))).rejects.toBe(reason);
});

it('a process that has ended, and waits for its parent to notice, runs no more', async () => {
  // the shell becomes a program that does not look after the shell's child, which ends after that
  const parent = spawn('sh', ['-c', 'sleep 0.3 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const [said] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(said.toString());
    const stateOf = (): string =>
      readFileSync(`/proc/${pid}/stat`, 'latin1').replace(/^.*\) (.).*$/s, '$1');
    await expect.poll(stateOf, { timeout: 10_000 }).toBe('Z');
    const { host, bootId } = thisProcess();
    expect(isAlive({ host, bootId, pid })).toBe(false);
    expect(isAlive({ host, bootId, pid: parent.pid as number })).toBe(true);
  } finally {
    parent.kill('SIGKILL');
  }
});

it('every job has an id of its own, a UUID', () => {
  const ids = [newJobId(), newJobId()];
  for (const id of ids)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(ids[0]).not.toBe(ids[1]);
});
