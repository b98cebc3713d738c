import { type GivenSecret, HostError, secretGiven, secretInArgument } from '@downfold/host';
import type { Allowed } from '../environment.ts';
import { ServerError } from '../errors.ts';
import {
  type ExportOptions,
  exportOptions,
  type NbdServerOptions,
  nbdServerOptions,
  type SocketAddress,
} from '../qmp/schema/exports.ts';
import {
  type BlockdevOptions,
  blockdevOptions,
  FORMATS,
  type FormatName,
} from '../qmp/schema/nodes.ts';
import { optionOf } from './keyval.ts';
import { chardevOptions, monitorOptions } from './monitor.ts';
import { type ObjectOptions, objectOptions } from './objects.ts';

/** A disk in the short form: its image, and what it is served as. */
interface ShortForm {
  readonly file: string;
  readonly format: FormatName;
}

/** What the command line asks for, whatever form it has. */
export interface Settings extends Allowed {
  readonly disk: ShortForm | null;
  readonly objects: readonly ObjectOptions[];
  /** Of encrypted images. */
  readonly secrets: readonly GivenSecret[];
  readonly blockdevs: readonly BlockdevOptions[];
  readonly exports: readonly ExportOptions[];
  readonly nbdServer: NbdServerOptions | null;
  /** Paths of QMP sockets. */
  readonly monitors: readonly string[];
  readonly pools: readonly string[];
  readonly resume: boolean;
  readonly daemonize: boolean;
  readonly pidfile: string | null;
  /** Where metrics are served; null: nowhere. */
  readonly metrics: SocketAddress | null;
  /** Seconds that stopping may take; 0: any time. */
  readonly stopTimeout: number;
}

/** What commander makes of the command line. */
export interface RawOptions {
  readonly format?: string;
  readonly nbd?: string;
  readonly qmp?: string;
  readonly readOnly?: boolean;
  readonly blockdev?: readonly string[];
  readonly export?: readonly string[];
  readonly nbdServer?: string;
  readonly chardev?: readonly string[];
  readonly monitor?: readonly string[];
  readonly object?: readonly string[];
  readonly daemonize?: boolean;
  readonly pidfile?: string;
  readonly metrics?: string;
  readonly resume?: boolean;
  readonly pool?: readonly string[];
  readonly allow?: readonly string[];
  readonly lock?: Allowed['lock'];
  readonly secret?: readonly string[];
  readonly allowDataFile?: boolean;
  readonly stopTimeout?: string;
}

/** Name of the node, and of the export, that the short form makes. */
export const DISK = 'disk';

/** @throws ServerError `SERVER_USAGE` */
export function settingsOf(file: string | undefined, options: RawOptions): Settings {
  const disk = file === undefined ? null : { file, format: formatOf(options.format ?? 'qcow2') };
  if (disk === null && (options.format ?? options.readOnly) !== undefined)
    throw usage('--format and --read-only go with FILE');
  if (options.nbd !== undefined && options.nbdServer !== undefined)
    throw usage('--nbd or --nbd-server, not both');
  return {
    disk,
    objects: (options.object ?? []).map(objectOf),
    secrets: (options.secret ?? []).map(secretOf),
    blockdevs: (options.blockdev ?? []).map((text) => optionOf(blockdevOptions, text, 'driver')),
    exports: [
      ...(disk === null ? [] : [exportOf(options.readOnly ?? false)]),
      ...(options.export ?? []).map((text) => optionOf(exportOptions, text, 'type')),
    ],
    nbdServer: nbdServerOf(options),
    monitors: monitorsOf(options),
    pools: options.pool ?? [],
    allow: options.allow ?? [],
    lock: options.lock ?? 'auto',
    allowDataFile: options.allowDataFile ?? false,
    resume: options.resume ?? false,
    daemonize: options.daemonize ?? false,
    pidfile: options.pidfile ?? null,
    metrics: options.metrics === undefined ? null : addressOf(options.metrics, '--metrics'),
    stopTimeout: secondsOf(options.stopTimeout ?? '240'),
  };
}

function objectOf(text: string): ObjectOptions {
  const options = optionOf(objectOptions, text, 'qom-type');
  if ('data' in options) throw usage(secretInArgument().message);
  return options;
}

function secretOf(text: string): GivenSecret {
  try {
    return secretGiven(text);
  } catch (cause) {
    throw cause instanceof HostError ? usage(`--secret: ${cause.message}`) : cause;
  }
}

/** The short form's export is the one that a client gets who names none. */
function exportOf(readOnly: boolean): ExportOptions {
  return {
    type: 'nbd',
    id: DISK,
    'node-name': DISK,
    name: '',
    writable: !readOnly,
    'allocation-depth': true,
  };
}

function nbdServerOf({ nbd, nbdServer }: RawOptions): NbdServerOptions | null {
  if (nbd !== undefined) return { addr: addressOf(nbd, '--nbd') };
  return nbdServer === undefined ? null : optionOf(nbdServerOptions, nbdServer, null);
}

/** `unix:PATH` or `HOST:PORT`; the host of an IPv6 address stands in brackets. */
function addressOf(text: string, option: string): SocketAddress {
  if (text.startsWith('unix:')) return { type: 'unix', path: pathOf(text) };
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || port === undefined)
    throw usage(`${option}: '${text}' is neither unix:PATH nor HOST:PORT`);
  return { type: 'inet', host, port };
}

/** As long as timers can be. */
function secondsOf(text: string): number {
  const seconds = Number(text);
  if (/^\d+$/.test(text) && seconds <= 2_000_000) return seconds;
  throw usage(`--stop-timeout: '${text}' is no number of seconds`);
}

function pathOf(text: string): string {
  const path = text.slice('unix:'.length);
  if (!text.startsWith('unix:') || path === '') throw usage(`'${text}' is no unix:PATH`);
  return path;
}

function monitorsOf({ qmp, chardev = [], monitor = [] }: RawOptions): readonly string[] {
  const paths = new Map<string, string>();
  for (const text of chardev) {
    const { id, path, server = false } = optionOf(chardevOptions, text, 'backend');
    if (!server) throw usage(`chardev '${id}': only server=on: this is a server`);
    if (paths.has(id)) throw usage(`there is a chardev '${id}' already`);
    paths.set(id, path);
  }
  const used = monitor.map((text) => {
    const { chardev: id } = optionOf(monitorOptions, text, 'chardev');
    const path = paths.get(id);
    if (path === undefined) throw usage(`chardev '${id}' not found, or another monitor has it`);
    paths.delete(id);
    return path;
  });
  return [...(qmp === undefined ? [] : [pathOf(qmp)]), ...used];
}

function formatOf(name: string): FormatName {
  const format = FORMATS.find((one) => one === name);
  if (format !== undefined) return format;
  throw usage(`Unknown image format '${name}'; known are ${FORMATS.join(', ')}`);
}

function usage(message: string): ServerError {
  return new ServerError('SERVER_USAGE', message);
}
