import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { connectNbd } from '@downfold/nbd';
import { connectQmp } from '@downfold/qmp';
import { describe, expect, it } from 'vitest';
import { inheritedSockets } from '../src/systemd.ts';
import { Bench, BIN, contentOf, haveAll, MIB, makeChain } from './support.ts';

const UNITS = fileURLToPath(new URL('../systemd/', import.meta.url));

/** As systemd does it: descriptors from 3 on, and the id of the process that they are for. Perl is part of every Debian. */
const SUPERVISOR = `
  $^F = 255; # descriptors stay open for the program
  for my $name ('nbd.sock', 'qmp.sock') {
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die $!;
    bind($socket, pack_sockaddr_un($name)) or die $!;
    listen($socket, 8) or die $!;
    push @kept, $socket;
  }
  die 'not 3 and 4' unless fileno($kept[0]) == 3 and fileno($kept[1]) == 4;
  @ENV{qw(LISTEN_PID LISTEN_FDS LISTEN_FDNAMES)} = ($$, 2, 'nbd:qmp');
  exec @ARGV;
`;

/** The end of sd_notify(3) that systemd has. */
const LISTENER = `
  socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die $!;
  bind($socket, pack_sockaddr_un('notify.sock')) or die $!;
  while (defined recv($socket, my $text, 4096, 0)) {
    print "$text\\n";
    last if $text =~ /STOPPING=1/;
  }
`;

describe('sockets that systemd hands over', () => {
  it('are those meant for this process, by their names', () => {
    const environment = { LISTEN_PID: '7', LISTEN_FDS: '2', LISTEN_FDNAMES: 'qmp:nbd' };
    expect([...inheritedSockets(environment, 7)]).toEqual([
      ['qmp', 3],
      ['nbd', 4],
    ]);
    expect(inheritedSockets(environment, 8).size).toBe(0);
    expect(inheritedSockets({ ...environment, LISTEN_FDS: '-1' }, 7).size).toBe(0);
    expect(inheritedSockets({}, 7).size).toBe(0);
  });

  it('serve NBD and QMP', async () => {
    await using bench = new Bench();
    await makeChain(bench);
    // nobody but the server may accept: a process that listens, and becomes it
    const started = bench.program(
      'perl',
      '-MSocket',
      '-e',
      SUPERVISOR,
      process.execPath,
      BIN,
      'top.qcow2',
    );
    await started.said(/NBD at descriptor 3/);
    {
      await using client = await connectNbd({ server: { path: bench.file('nbd.sock') }, name: '' });
      const first = Buffer.alloc(MIB);
      await client.read(0, first);
      expect(first.equals(contentOf().subarray(0, MIB))).toBe(true);
      await using control = await connectQmp(bench.file('qmp.sock'));
      await control.execute('quit');
    }
    expect(await started.ended).toMatchObject({ code: 0 });
  });
});

it.skipIf(!haveAll('systemd-notify'))('says that it is ready, and that it stops', async () => {
  await using bench = new Bench();
  await makeChain(bench);
  const listening = bench.run('perl', '-MSocket', '-e', LISTENER);
  await expect.poll(() => readdirSync(bench.path)).toContain('notify.sock');
  const server = bench.start(['top.qcow2', '--nbd', 'unix:nbd.sock'], {
    NOTIFY_SOCKET: bench.file('notify.sock'),
  });
  await server.said(/NBD at/);
  server.kill('SIGTERM');
  expect((await server.ended).code).toBe(0);
  const { stdout } = await listening;
  expect(stdout).toMatch(/READY=1[\s\S]*STOPPING=1/);
});

it.skipIf(!haveAll('systemd-analyze'))('the units are understood by systemd', async () => {
  await using bench = new Bench();
  mkdirSync(bench.file('units'));
  const names = readdirSync(UNITS);
  for (const name of names) {
    // the program is not installed here
    const text = readFileSync(`${UNITS}${name}`, 'utf8').replace('/usr/bin/downfoldd', BIN);
    // a template is verified by an instance of it
    writeFileSync(bench.file(`units/${name.replace('@.', '@disk.')}`), text);
  }
  const paths = names.map((name) => bench.file(`units/${name.replace('@.', '@disk.')}`));
  const { stdout, stderr } = await bench.run('systemd-analyze', '--man=no', 'verify', ...paths);
  const said = `${stdout}${stderr}`.split('\n').filter((line) => line.includes('downfoldd'));
  expect(said).toEqual([]);
});
