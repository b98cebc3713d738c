import { expect, it, vi } from 'vitest';
import { failureHandler } from '../src/on-error.ts';

it('--on-error stop hears a SIGCONT that comes while it says that it is paused', async () => {
  const listening: number[] = [];
  using _ = vi.spyOn(process.stderr, 'write').mockImplementation(() => {
    listening.push(process.listenerCount('SIGCONT'));
    process.emit('SIGCONT');
    return true;
  });
  const before = process.listenerCount('SIGCONT');
  const handler = failureHandler('stop', new AbortController().signal);
  expect(await handler({ error: new Error('full') } as Parameters<typeof handler>[0])).toBe(true);
  expect(listening).toEqual([before + 1]);
});
