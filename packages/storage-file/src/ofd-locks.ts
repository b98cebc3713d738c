import { nativeCalls } from './native.ts';

/**
 * Locks of open file descriptions (fcntl F_OFD_SETLK): they end when the last descriptor of the description is closed, or the process
 * ends. Linux only.
 */
export interface LockCalls {
  /**
   * Takes shared locks on the bytes `hold`, then looks for locks of others on the bytes `free`. Resolves with the first byte that stands
   * in the way, or null. What is held stays held either way until the descriptor is closed.
   */
  acquire(fd: number, hold: readonly number[], free: readonly number[]): Promise<number | null>;
  /** Lets go what this descriptor holds of these bytes. */
  release(fd: number, bytes: readonly number[]): Promise<void>;
}

/** Through koffi where it is installed, else through Perl, which is part of every Debian; null on systems that are not Linux. */
export function lockCalls(): LockCalls | null {
  if (process.platform !== 'linux') return null;
  const native = nativeCalls();
  if (native === null) return perlLocks;
  return {
    acquire: async (...of) => native.acquireLocks(...of),
    release: async (...of) => native.releaseLocks(...of),
  };
}

/** An inherited descriptor is the same open file description: what Perl locks stays locked for Node after it has ended. */
const PERL = `
open(my $file, '<&=', 3) or die "open: $!";
my ($hold, $free, $drop) = map { [split /,/] } @ARGV;
sub pack_lock { pack('s s x4 q q l x4', $_[0], 0, $_[1], 1, 0) }
for my $byte (@$drop) {
  fcntl($file, 37, pack_lock(2, $byte)) or die "fcntl: $!";
}
for my $byte (@$hold) {
  my $lock = pack_lock(0, $byte);
  next if fcntl($file, 37, $lock);
  if ($!{EAGAIN} || $!{EACCES}) { print $byte; exit 0 }
  die "fcntl: $!";
}
for my $byte (@$free) {
  my $lock = pack_lock(1, $byte);
  fcntl($file, 36, $lock) or die "fcntl: $!";
  if ((unpack('s', $lock))[0] != 2) { print $byte; exit 0 }
}
print 'free';
`;

/** Without native code. A process more for each lock: some 25 ms. */
export const perlLocks: LockCalls = {
  acquire: (fd, hold, free) => perl(fd, hold, free, []),
  release: async (fd, bytes) => {
    if (bytes.length > 0) await perl(fd, [], [], bytes);
  },
};

async function perl(fd: number, ...bytes: readonly (readonly number[])[]): Promise<number | null> {
  // of no use to most, and the sockets that come with it take milliseconds of a start
  const { spawn } = await import('node:child_process');
  return new Promise((resolve, reject) => {
    const lists = bytes.map((list) => list.join());
    const child = spawn('perl', ['-MErrno', '-e', PERL, ...lists], {
      stdio: ['ignore', 'pipe', 'pipe', fd],
    });
    const [out, err]: string[][] = [[], []];
    child.stdout?.on('data', (chunk) => out?.push(String(chunk)));
    child.stderr?.on('data', (chunk) => err?.push(String(chunk)));
    child.on('error', reject);
    child.on('close', (code) => {
      const said = (out ?? []).join('');
      if (code === 0 && said === 'free') resolve(null);
      else if (code === 0 && /^\d+$/.test(said)) resolve(Number(said));
      else reject(new Error(`perl could not lock: ${(err ?? []).join('').trim()}`));
    });
  });
}
