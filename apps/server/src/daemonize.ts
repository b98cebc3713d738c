import { spawn } from 'node:child_process';

/** How the process in the background knows that somebody waits for its word. */
const VARIABLE = 'DOWNFOLDD_STARTER';

/**
 * Starts this program once more in the background, without `--daemonize`, and waits until it serves or fails; its errors come out here.
 * Resolves with the exit code for this process.
 */
export async function startInBackground(args: readonly string[]): Promise<number> {
  const script = process.argv[1] ?? '';
  const child = spawn(process.execPath, [...process.execArgv, script, ...args], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...process.env, [VARIABLE]: '1' },
  });
  child.stderr?.pipe(process.stderr);
  return await new Promise<number>((resolve) => {
    child.once('message', () => {
      child.disconnect();
      child.stderr?.destroy();
      child.unref();
      resolve(0);
    });
    child.once('error', () => resolve(1));
    child.once('exit', (code) => resolve(code === 0 ? 1 : (code ?? 1)));
  });
}

/** Whether this process was started in the background by another one that waits. */
export function isBackground(): boolean {
  return process.env[VARIABLE] === '1' && process.send !== undefined;
}

/** Lets whoever waits go. Nobody reads stderr any more. */
export async function releaseStarter(): Promise<void> {
  if (!isBackground()) return;
  process.stderr.on('error', () => undefined);
  const gone = new Promise<void>((resolve) => process.once('disconnect', resolve));
  process.send?.('serving');
  await gone;
}
