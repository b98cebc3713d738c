import {
  alternate,
  anything,
  bool,
  type Commands,
  command,
  deprecated,
  type Events,
  event,
  int,
  lazy,
  list,
  nothing,
  oneOf,
  optional,
  QmpError,
  str,
  struct,
  type Type,
  uint32,
  uint64,
  union,
} from '../src/index.ts';

/** Some of QEMU 7.2's interface, declared here as QAPI declares it, so that QEMU can judge what is made of it. */

const jobType = oneOf(
  [
    'commit',
    'stream',
    'mirror',
    'backup',
    'create',
    'amend',
    'snapshot-load',
    'snapshot-save',
    'snapshot-delete',
  ],
  'JobType',
);
const jobStatus = oneOf(
  [
    'undefined',
    'created',
    'running',
    'paused',
    'ready',
    'standby',
    'waiting',
    'pending',
    'aborting',
    'concluded',
    'null',
  ],
  'JobStatus',
);
const onError = oneOf(['report', 'ignore', 'enospc', 'stop', 'auto'], 'BlockdevOnError');

const unixAddress = struct({ path: str, abstract: optional(bool), tight: optional(bool) });
const inetAddress = struct({
  host: str,
  port: str,
  numeric: optional(bool),
  to: optional(uint32),
  ipv4: optional(bool),
  ipv6: optional(bool),
  'keep-alive': optional(bool),
  mptcp: optional(bool),
});
const vsockAddress = struct({ cid: str, port: str });
const address = union({
  name: 'SocketAddressLegacy',
  tag: 'type',
  base: {},
  variants: {
    inet: struct({ data: inetAddress }),
    unix: struct({ data: unixAddress }),
    vsock: struct({ data: vsockAddress }),
    fd: struct({ data: struct({ str }) }),
  },
});

const overlapChecks = alternate('Qcow2OverlapChecks', [
  struct({ template: optional(oneOf(['none', 'constant', 'cached', 'all'])) }),
  oneOf(['none', 'constant', 'cached', 'all']),
]);
const nodeOptions: Type<object> = union({
  name: 'BlockdevOptions',
  tag: 'driver',
  base: {
    'node-name': optional(str),
    discard: optional(oneOf(['ignore', 'unmap'])),
    cache: optional(struct({ direct: optional(bool), 'no-flush': optional(bool) })),
    'read-only': optional(bool),
    'auto-read-only': optional(bool),
    'force-share': optional(bool),
    'detect-zeroes': optional(oneOf(['off', 'on', 'unmap'])),
  },
  variants: {
    file: struct({ filename: str, aio: optional(oneOf(['threads', 'native', 'io_uring'])) }),
    qcow2: struct({
      file: lazy<unknown>(() => nodeReference),
      backing: optional(
        alternate('BlockdevRefOrNull', [lazy<object>(() => nodeOptions), str, nothing]),
      ),
      'lazy-refcounts': optional(bool),
      'overlap-check': optional(overlapChecks),
      'cache-size': optional(int),
    }),
  },
});
const nodeReference: Type<unknown> = alternate('BlockdevRef', [nodeOptions, str]);

function notFound(device: string): QmpError {
  return new QmpError('DeviceNotFound', `Device '${device}' not found`);
}

export const commands: Commands = {
  'block-commit': command({
    about: 'Commits data down.',
    arguments: struct({
      'job-id': optional(str),
      device: str,
      'base-node': optional(str),
      base: optional(deprecated(str)),
      'top-node': optional(str),
      top: optional(deprecated(str)),
      'backing-file': optional(str),
      speed: optional(int),
      'on-error': optional(onError),
      'filter-node-name': optional(str),
      'auto-finalize': optional(bool),
      'auto-dismiss': optional(bool),
    }),
    run: ({ device }) => {
      throw notFound(device);
    },
  }),
  'query-jobs': command({
    about: 'Tells all jobs.',
    returns: list(
      struct({
        id: str,
        type: jobType,
        status: jobStatus,
        'current-progress': int,
        'total-progress': int,
        error: optional(str),
      }),
    ),
    run: () => [],
  }),
  'job-cancel': command({
    about: 'Cancels a job.',
    arguments: struct({ id: str }),
    run: () => {
      throw new QmpError('GenericError', 'Job not found');
    },
  }),
  'block-job-set-speed': command({
    about: 'Sets a limit.',
    arguments: struct({ device: str, speed: int }),
    run: ({ device }) => {
      throw new QmpError('DeviceNotActive', `Block job '${device}' not found`);
    },
  }),
  'nbd-server-start': command({
    about: 'Starts an NBD server.',
    arguments: struct({
      addr: address,
      'tls-creds': optional(str),
      'tls-authz': optional(str),
      'max-connections': optional(uint32),
    }),
    run: () => {},
  }),
  'blockdev-add': command({
    about: 'Adds a node.',
    arguments: nodeOptions,
    run: () => {
      throw new QmpError('GenericError', "'node-name' must be specified for the root node");
    },
  }),
  'blockdev-del': command({
    about: 'Removes a node.',
    arguments: struct({ 'node-name': str }),
    run: (args) => {
      throw new QmpError(
        'GenericError',
        `Failed to find node with node-name='${args['node-name']}'`,
      );
    },
  }),
  'block-dirty-bitmap-add': command({
    about: 'Adds a bitmap.',
    arguments: struct({
      node: str,
      name: str,
      granularity: optional(uint32),
      persistent: optional(bool),
      disabled: optional(bool),
    }),
    run: ({ node, name }) => {
      if (name === '') throw new QmpError('GenericError', 'Bitmap name cannot be empty');
      throw new QmpError('GenericError', `Cannot find device='${node}' nor node-name='${node}'`);
    },
  }),
  'block-stream': command({
    about: 'Only its arguments are told here.',
    arguments: struct({
      'job-id': optional(str),
      device: str,
      base: optional(str),
      'base-node': optional(str),
      'backing-file': optional(str),
      bottom: optional(str),
      speed: optional(int),
      'on-error': optional(onError),
      'filter-node-name': optional(str),
      'auto-finalize': optional(bool),
      'auto-dismiss': optional(bool),
    }),
    run: ({ device }) => {
      throw notFound(device);
    },
  }),
  'qom-set': command({
    about: 'Sets a property to any value.',
    arguments: struct({ path: str, property: str, value: anything }),
    run: ({ path }) => {
      throw notFound(path);
    },
  }),
  transaction: command({
    about: 'A list of unions; only some of the actions.',
    arguments: struct({
      actions: list(
        union({
          name: 'TransactionAction',
          tag: 'type',
          base: {},
          variants: {
            abort: struct({ data: struct({}) }),
            'block-dirty-bitmap-clear': struct({ data: struct({ node: str, name: str }) }),
          },
        }),
      ),
      properties: optional(
        struct({ 'completion-mode': optional(oneOf(['individual', 'grouped'])) }),
      ),
    }),
    run: () => {
      throw new QmpError('GenericError', 'Transaction aborted using Abort action');
    },
  }),
  'blockdev-create': command({
    about: 'Only its size is told here.',
    arguments: struct({
      'job-id': str,
      options: union({
        name: 'BlockdevCreateOptions',
        tag: 'driver',
        base: {},
        variants: { file: struct({ filename: str, size: uint64 }) },
      }),
    }),
    run: () => {},
  }),
};

const blockJob = struct({ type: jobType, device: str, len: int, offset: int, speed: int });

export const events: Events = {
  JOB_STATUS_CHANGE: event({
    about: 'A job went from one state to another.',
    data: struct({ id: str, status: jobStatus }),
  }),
  BLOCK_JOB_READY: event({ about: 'A job may be completed.', data: blockJob }),
};
