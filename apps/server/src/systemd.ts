import { spawn } from 'node:child_process';

/** The first descriptor that systemd hands over. */
const FIRST = 3;

/** Sockets that systemd listens on for this process: descriptors by name. Source: sd_listen_fds(3). */
export function inheritedSockets(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  pid: number = process.pid,
): ReadonlyMap<string, number> {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = environment;
  const count = Number(LISTEN_FDS);
  if (LISTEN_PID !== String(pid) || !Number.isSafeInteger(count) || count < 1) return new Map();
  const names = LISTEN_FDNAMES?.split(':') ?? [];
  return new Map(
    Array.from({ length: count }, (_, index) => [names[index] ?? 'unknown', FIRST + index]),
  );
}

/**
 * Tells systemd how this service is (sd_notify(3)). Node has no datagram sockets of Unix: `systemd-notify` sends it, so the unit needs
 * `NotifyAccess=all`. Without a supervisor nothing happens. Rejects when it could not be sent.
 */
export async function notify(...states: readonly string[]): Promise<void> {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  await new Promise<void>((resolve, reject) => {
    const child = spawn('systemd-notify', [`--pid=${process.pid}`, ...states], { stdio: 'ignore' });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`systemd-notify ended with ${code}`)),
    );
  });
}
