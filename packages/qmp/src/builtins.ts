import { type Commands, command } from './command.ts';
import { QmpError } from './errors.ts';
import { schemaInfo } from './introspect.ts';
import { int, list, oneOf, optional, str, struct, type Type } from './types.ts';
import type { QmpVersion } from './version.ts';

/** What `query-version` returns. */
const versionInfo: Type<QmpVersion> = struct(
  {
    qemu: struct({ major: int, minor: int, micro: int }, 'VersionTriple'),
    package: str,
  },
  'VersionInfo',
);

const commandInfo: Type<{ readonly name: string }> = struct({ name: str }, 'CommandInfo');

/** The commands that every server has. `qmp_capabilities` is run only when it comes too late: the first one is a session's matter. */
export function builtins(server: {
  readonly version: QmpVersion;
  readonly names: () => readonly string[];
  readonly schema: () => readonly object[];
}): Commands {
  return {
    qmp_capabilities: command({
      about: 'Ends negotiation; the first command of every session.',
      arguments: struct({ enable: optional(list(oneOf(['oob'], 'QMPCapability'))) }),
      run: () => {
        throw new QmpError(
          'CommandNotFound',
          'Capabilities negotiation is already complete, command ignored',
        );
      },
    }),
    'query-version': command({
      about: 'Tells the version, as the greeting does.',
      returns: versionInfo,
      run: () => server.version,
    }),
    'query-commands': command({
      about: 'Tells the names of all commands.',
      returns: list(commandInfo),
      run: () => server.names().map((name) => ({ name })),
    }),
    'query-qmp-schema': command({
      about: 'Tells commands, events and their types.',
      returns: list(schemaInfo),
      run: () => server.schema(),
    }),
  };
}
