import { describe, expect, test } from 'vitest';
import { outputOf, runTool } from '../src/index.ts';

// These prove that a program that another process starts is started as this one would: its words, its directory, its end.
describe('a program', () => {
  test('says what it says, in the order asked', () => {
    for (const word of ['one', 'two', 'über'])
      expect(outputOf('sh', ['-c', 'echo "$0"; echo aside >&2', word])).toBe(`${word}\n`);
  });

  test('has its directory, its environment, and nothing to read', () => {
    const end = runTool('sh', ['-c', 'pwd; echo $WORD; cat'], {
      cwd: '/',
      env: { PATH: process.env['PATH'], WORD: 'word' },
    });
    expect(end).toEqual({ status: 0, signal: null, stdout: '/\nword\n', stderr: '', error: null });
  });

  test('may say more than a pipe holds', () => {
    expect(outputOf('sh', ['-c', 'head -c 3000000 /dev/zero | tr "\\0" x']).length).toBe(3_000_000);
  });

  test('ends by its code, by a signal, by its time, or is not there', () => {
    expect(runTool('sh', ['-c', 'echo no >&2; exit 3'])).toMatchObject({
      status: 3,
      stderr: 'no\n',
    });
    expect(runTool('sh', ['-c', 'kill -9 $$'])).toMatchObject({ status: null, signal: 'SIGKILL' });
    expect(runTool('sleep', ['60'], { timeout: 20 })).toMatchObject({
      signal: 'SIGTERM',
      error: 'ETIMEDOUT',
    });
    expect(runTool('no-such-program', [])).toMatchObject({ status: null, error: 'ENOENT' });
    expect(() => outputOf('sh', ['-c', 'echo aha; exit 3'])).toThrow(/sh -c .*: exit 3\naha/);
  });
});
