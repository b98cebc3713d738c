import {
  bool,
  type Command,
  type Commands,
  command,
  list,
  oneOf,
  optional,
  str,
  struct,
  type Type,
} from '@downfold/qmp';
import type { ServerParts } from '../context.ts';
import {
  type ExportInfo,
  exportOptions,
  flatAddress,
  nbdServerAddOptions,
  nbdServerStart,
  removeMode,
} from '../schema/exports.ts';

const exportInfo: Type<ExportInfo> = struct(
  {
    id: str,
    type: oneOf(['nbd'], 'BlockExportType'),
    'node-name': str,
    'shutting-down': bool,
  },
  'BlockExportInfo',
);

/** `nbd-server-*` and `block-export-*`. */
export function exportCommands({ exports }: ServerParts): Commands {
  return {
    'nbd-server-start': command({
      about: 'Starts the NBD server.',
      arguments: nbdServerStart,
      run: ({ addr, ...rest }) => exports.start({ ...rest, addr: flatAddress(addr) }),
    }) as Command,
    'nbd-server-add': command({
      about: 'Exports a disk by its name.',
      arguments: nbdServerAddOptions,
      features: ['deprecated'],
      run: ({ device, name = device, ...rest }) =>
        exports.add({ type: 'nbd', id: name, 'node-name': device, name, ...rest }),
    }) as Command,
    'nbd-server-remove': command({
      about: 'Ends an export by its name.',
      arguments: struct({ name: str, mode: optional(removeMode) }),
      features: ['deprecated'],
      run: ({ name, mode = 'safe' }) => exports.remove(exports.idOf(name), mode),
    }) as Command,
    'nbd-server-stop': command({
      about:
        'Stops the NBD server and all exports, once the requests of their clients are answered.',
      run: () => exports.stop(),
    }) as Command,
    'block-export-add': command({
      about: 'Exports a disk. For a writable one the active layer is checked first.',
      arguments: exportOptions,
      run: (options) => exports.add(options),
    }) as Command,
    'block-export-del': command({
      about:
        'Begins to end an export: `safe` (the default) only one without clients, `hard` any. BLOCK_EXPORT_DELETED tells when it is gone.',
      arguments: struct({ id: str, mode: optional(removeMode) }),
      run: ({ id, mode = 'safe' }) => exports.remove(id, mode),
    }) as Command,
    'query-block-exports': command({
      about: 'Tells of all exports.',
      returns: list(exportInfo),
      run: () => exports.list(),
    }) as Command,
  };
}
