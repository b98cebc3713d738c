import { once } from 'node:events';
import { unlinkSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import { expect, it } from 'vitest';
import { Bench, makeChain } from './support.ts';

/** A client that was not written for this server: lines out, lines in, in the order of the wire. */
class Wire {
  readonly #socket: Socket;
  readonly #lines: AsyncIterator<string>;
  readonly #interface: Interface;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.#interface = createInterface(socket);
    this.#lines = this.#interface[Symbol.asyncIterator]();
  }

  static async to(path: string): Promise<Wire> {
    const socket = connect(path);
    await once(socket, 'connect');
    return new Wire(socket);
  }

  say(line: string): void {
    this.#socket.write(`${line}\n`);
  }

  /** The next message, without its time. */
  async hear(): Promise<Record<string, unknown>> {
    const { value } = await this.#lines.next();
    const { timestamp: _, ...message } = JSON.parse(String(value)) as Record<string, unknown>;
    return message;
  }

  close(): void {
    this.#socket.destroy();
  }
}

const status = (id: string, state: string) => ({
  event: 'JOB_STATUS_CHANGE',
  data: { id, status: state },
});

/**
 * The session of a real qemu-storage-daemon 7.2 (facts on the tool chain, appendix B): an intermediate commit with a speed, then a commit of
 * the active layer that is completed.
 */
it('a recorded session with qemu-storage-daemon goes the same way, event for event', async () => {
  await using bench = new Bench();
  await makeChain(bench);
  await bench.serve(
    ...['base', 'mid', 'top'].flatMap((name, index, names) => [
      '--blockdev',
      `file,node-name=${name}-file,filename=${name}.qcow2`,
      '--blockdev',
      `qcow2,node-name=${name},file=${name}-file${index === 0 ? '' : `,backing=${names[index - 1]}`}`,
    ]),
    '--chardev',
    'socket,id=c,path=run/qmp.sock,server=on,wait=off',
    '--monitor',
    'c',
  );
  const wire = await Wire.to(bench.file('run/qmp.sock'));
  expect(await wire.hear()).toMatchObject({ QMP: { version: { qemu: { major: 7, minor: 2 } } } });
  wire.say('{"execute": "query-block-jobs"}');
  expect(await wire.hear()).toEqual({
    error: {
      class: 'CommandNotFound',
      desc: "Expecting capabilities negotiation with 'qmp_capabilities'",
    },
  });
  wire.say('{"execute": "qmp_capabilities"}');
  expect(await wire.hear()).toEqual({ return: {} });

  wire.say(
    '{"execute": "block-commit", "id": "x1", "arguments": {"job-id": "c0", "device": "top", "base-node": "base", "top-node": "mid", "speed": 1048576}}',
  );
  expect(await wire.hear()).toEqual(status('c0', 'created'));
  expect(await wire.hear()).toEqual(status('c0', 'running'));
  expect(await wire.hear()).toEqual({ return: {}, id: 'x1' });
  wire.say('{"execute": "query-block-jobs"}');
  const { return: blockJobs } = await wire.hear();
  expect(blockJobs).toEqual([
    {
      'auto-finalize': true,
      'io-status': 'ok',
      device: 'c0',
      'auto-dismiss': true,
      busy: true,
      len: 4194304,
      offset: expect.any(Number),
      status: 'running',
      paused: false,
      speed: 1048576,
      ready: false,
      type: 'commit',
    },
  ]);
  wire.say('{"execute": "query-jobs"}');
  expect(await wire.hear()).toEqual({
    return: [
      {
        'current-progress': expect.any(Number),
        status: 'running',
        'total-progress': 4194304,
        type: 'commit',
        id: 'c0',
      },
    ],
  });
  wire.say('{"execute": "block-job-set-speed", "arguments": {"device": "c0", "speed": 0}}');
  expect(await wire.hear()).toEqual({ return: {} });
  expect(await wire.hear()).toEqual(status('c0', 'waiting'));
  expect(await wire.hear()).toEqual(status('c0', 'pending'));
  expect(await wire.hear()).toEqual({
    event: 'BLOCK_JOB_COMPLETED',
    data: { device: 'c0', len: 4194304, offset: 4194304, speed: 0, type: 'commit' },
  });
  expect(await wire.hear()).toEqual(status('c0', 'concluded'));
  expect(await wire.hear()).toEqual(status('c0', 'null'));

  // what was committed is a node without a disk, as in QEMU, until it is taken away; its file reads through base
  wire.say('{"execute": "blockdev-del", "arguments": {"node-name": "mid"}}');
  expect(await wire.hear()).toEqual({ return: {} });
  unlinkSync(bench.file('mid.qcow2'));

  wire.say(
    '{"execute": "block-commit", "arguments": {"job-id": "c1", "device": "top", "base-node": "base"}}',
  );
  expect(await wire.hear()).toEqual(status('c1', 'created'));
  expect(await wire.hear()).toEqual(status('c1', 'running'));
  expect(await wire.hear()).toEqual({ return: {} });
  expect(await wire.hear()).toEqual(status('c1', 'ready'));
  expect(await wire.hear()).toEqual({
    event: 'BLOCK_JOB_READY',
    data: { device: 'c1', len: 2097152, offset: 2097152, speed: 0, type: 'commit' },
  });
  wire.say('{"execute": "block-job-complete", "arguments": {"device": "c1"}}');
  expect(await wire.hear()).toEqual({ return: {} });
  expect(await wire.hear()).toEqual(status('c1', 'waiting'));
  expect(await wire.hear()).toEqual(status('c1', 'pending'));
  expect(await wire.hear()).toEqual({
    event: 'BLOCK_JOB_COMPLETED',
    data: { device: 'c1', len: 2097152, offset: 2097152, speed: 0, type: 'commit' },
  });
  expect(await wire.hear()).toEqual(status('c1', 'concluded'));
  expect(await wire.hear()).toEqual(status('c1', 'null'));
  wire.close();
});
