import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Bench, Started } from '../support.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** How QEMU runs the guest. Emulated, the same everywhere; `DOWNFOLD_GUEST_ACCEL=kvm:tcg` is faster where there is KVM. */
const ACCEL = process.env['DOWNFOLD_GUEST_ACCEL'] ?? 'tcg';
/** Longest that a guest may say nothing, in milliseconds. */
const PATIENCE = 120_000;

/** MD5 sums of files, by name. */
export type Manifest = ReadonlyMap<string, string>;

/** Reads what `md5sum` prints. */
function manifestOf(text: string): Manifest {
  const lines = text.split('\n').filter((line) => line !== '');
  return new Map(lines.map((line) => [line.slice(34), line.slice(0, 32)]));
}

/** What is fetched once and kept; `fetch.sh` says what there is. Resolves with its directory. */
export async function fetched(bench: Bench, what: 'guest' | 'qmp'): Promise<string> {
  return (await bench.must(here('fetch.sh'), what, here('../../.cache/foreign'))).trim();
}

/** A machine of QEMU's with Debian's kernel, whose disk is an NBD export; `guest-init.sh` is what it does. */
export class Guest {
  readonly #machine: Started;
  readonly #console: Socket;
  readonly #lines: AsyncIterator<string>;
  #last = '';
  /** Rounds of writes that the guest has told of. */
  rounds = 0;

  private constructor(machine: Started, console: Socket) {
    this.#machine = machine;
    this.#console = console;
    this.#lines = createInterface(console)[Symbol.asyncIterator]();
  }

  /** Boots it on the export of the Unix socket `nbd`, and waits until it has its disk. */
  static async boot(bench: Bench, nbd: string): Promise<Guest> {
    const kept = await fetched(bench, 'guest');
    await bench.must(here('initramfs.sh'), kept, 'initramfs');
    const machine = bench.program(
      'qemu-system-x86_64',
      ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
      ...['-machine', `pc,accel=${ACCEL}`, '-cpu', 'max', '-m', '256'],
      ...['-kernel', `${kept}/vmlinuz`, '-initrd', 'initramfs'],
      // an emulated timer may be late on a busy host, and is none the worse for it
      ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check nowatchdog'],
      ...['-chardev', 'socket,id=console,path=console.sock,server=on,wait=on'],
      ...['-serial', 'chardev:console'],
      '-blockdev',
      `driver=nbd,node-name=disk,server.type=unix,server.path=${nbd},discard=unmap`,
      ...['-device', 'virtio-blk-pci,drive=disk'],
    );
    const guest = new Guest(machine, await consoleOf(bench, machine));
    while ((await guest.#hear()) !== 'up');
    return guest;
  }

  /** Resolves when the guest has told of `count` more rounds of writes. */
  async writes(count: number): Promise<void> {
    const goal = this.rounds + count;
    while (this.rounds < goal) await this.#hear();
  }

  /** Tells it to shut down. Resolves, when the machine is off, with what its disk has to hold. */
  async stop(): Promise<Manifest> {
    this.#console.write('stop\n');
    while ((await this.#hear()) !== 'manifest');
    const lines = [];
    for (let line = await this.#hear(); line !== 'end of manifest'; line = await this.#hear())
      lines.push(line);
    this.#console.write('off\n');
    const { code, stderr } = await this.#machine.ended;
    if (code !== 0) throw new Error(`the machine ended with ${code}: ${stderr}`);
    return manifestOf(lines.join('\n'));
  }

  /** The next line of the console. */
  async #hear(): Promise<string> {
    const control = new AbortController();
    const late = sleep(PATIENCE, null, { signal: control.signal, ref: false });
    late.catch(() => undefined);
    const heard = await Promise.race([this.#lines.next(), late]);
    control.abort();
    if (heard === null) throw new Error(`the guest says nothing: ${this.#machine.stderr}`);
    if (heard.done) throw new Error(`the guest is gone; it last said: ${this.#last}`);
    const line = heard.value.trimEnd();
    this.#last = line;
    if (/^FAILED|Kernel panic|I\/O error|EXT4-fs (error|warning)/.test(line))
      throw new Error(`in the guest: ${line}\n${await this.#rest()}`);
    if (line.startsWith('round ')) this.rounds++;
    return line;
  }

  /** All that it says before it is off. */
  async #rest(): Promise<string> {
    const lines = [];
    for (let next = await this.#lines.next(); !next.done; next = await this.#lines.next())
      lines.push(next.value.trimEnd());
    return lines.join('\n');
  }
}

/** QEMU starts only when its console has somebody who listens. */
async function consoleOf(bench: Bench, machine: Started): Promise<Socket> {
  let ended: string | null = null;
  void machine.ended.then(({ stderr }) => {
    ended = stderr;
  });
  for (;;) {
    if (ended !== null) throw new Error(`qemu-system-x86_64 ended: ${ended}`);
    const socket = connect(bench.file('console.sock'));
    const isThere = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (isThere) return socket;
    await sleep(20);
  }
}
