import { about, bool, oneOf, optional, str, struct, type Type, uint32, union } from '@downfold/qmp';

/** How an NBD export is made. */
export interface ExportOptions {
  readonly type: 'nbd';
  readonly id: string;
  readonly 'node-name': string;
  readonly writable?: boolean;
  readonly writethrough?: boolean;
  readonly name?: string;
  readonly description?: string;
  readonly 'allocation-depth'?: boolean;
}

export const exportOptions: Type<ExportOptions> = union({
  name: 'BlockExportOptions',
  tag: 'type',
  tagType: 'BlockExportType',
  base: {
    id: str,
    'node-name': about('the active layer of a disk', str),
    writable: about('default false', optional(bool)),
    writethrough: about(
      'every change is durable when it is answered; default false',
      optional(bool),
    ),
  },
  variants: {
    nbd: struct(
      {
        name: about('what clients ask for; default: the node name', optional(str)),
        description: optional(str),
        'allocation-depth': about('offers `qemu:allocation-depth`; default false', optional(bool)),
      },
      'BlockExportOptionsNbd',
    ),
  },
});

/** The older way to export a node. */
export interface NbdServerAddOptions {
  readonly device: string;
  readonly name?: string;
  readonly description?: string;
  readonly writable?: boolean;
}

export const nbdServerAddOptions: Type<NbdServerAddOptions> = struct({
  device: about('the active layer of a disk', str),
  name: about('default: `device`', optional(str)),
  description: optional(str),
  writable: about('default false', optional(bool)),
});

/** What is told of an export. */
export interface ExportInfo {
  readonly id: string;
  readonly type: 'nbd';
  readonly 'node-name': string;
  readonly 'shutting-down': boolean;
}

/** Where the NBD server listens. */
export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string }
  | { readonly type: 'inet'; readonly host: string; readonly port: string }
  | { readonly type: 'fd'; readonly str: string };

const inet: Type<{ readonly host: string; readonly port: string }> = struct(
  { host: str, port: str },
  'InetSocketAddress',
);
const unix: Type<{ readonly path: string }> = struct({ path: str }, 'UnixSocketAddress');
const fd: Type<{ readonly str: string }> = struct(
  { str: about('the number of a descriptor that listens', str) },
  'FdSocketAddress',
);

/** How the NBD server is started, as `--nbd-server` has it. */
export interface NbdServerOptions {
  readonly addr: SocketAddress;
  readonly 'tls-creds'?: string;
  readonly 'max-connections'?: number;
}

/** Where a server listens, or is to be found. */
export const socketAddress: Type<SocketAddress> = union({
  name: 'SocketAddress',
  tag: 'type',
  base: {},
  variants: { inet, unix, fd },
});

const serverMembers = {
  'tls-creds': about('the id of a tls-creds object: every client must use TLS', optional(str)),
  'max-connections': about('default 100; 0: no limit', optional(uint32)),
};

export const nbdServerOptions: Type<NbdServerOptions> = struct(
  {
    addr: socketAddress,
    ...serverMembers,
  },
  'NbdServerOptions',
);

/** The same, as `nbd-server-start` has it. */
export interface NbdServerStart extends Omit<NbdServerOptions, 'addr'> {
  readonly addr:
    | { readonly type: 'unix'; readonly data: { readonly path: string } }
    | { readonly type: 'inet'; readonly data: { readonly host: string; readonly port: string } }
    | { readonly type: 'fd'; readonly data: { readonly str: string } };
}

export const nbdServerStart: Type<NbdServerStart> = struct({
  addr: union({
    name: 'SocketAddressLegacy',
    tag: 'type',
    tagType: 'SocketAddressType',
    base: {},
    variants: {
      inet: struct({ data: inet }, 'InetSocketAddressWrapper'),
      unix: struct({ data: unix }, 'UnixSocketAddressWrapper'),
      fd: struct({ data: fd }, 'FdSocketAddressWrapper'),
    },
  }),
  ...serverMembers,
});

/** The one form of an address as the other. */
export function flatAddress(address: NbdServerStart['addr']): SocketAddress {
  switch (address.type) {
    case 'unix':
      return { type: 'unix', ...address.data };
    case 'inet':
      return { type: 'inet', ...address.data };
    case 'fd':
      return { type: 'fd', ...address.data };
  }
}

/** What `safe` refuses and `hard` does not: to take an export from its clients. */
export const removeMode: Type<'safe' | 'hard'> = oneOf(['safe', 'hard'], 'BlockExportRemoveMode');
