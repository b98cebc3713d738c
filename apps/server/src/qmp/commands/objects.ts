import { type Command, type Commands, command, str, struct } from '@downfold/qmp';
import { objectOptions } from '../../options/objects.ts';
import type { ServerParts } from '../context.ts';

/** `object-add` and `object-del`. */
export function objectCommands({ objects }: ServerParts): Commands {
  return {
    'object-add': command({
      about:
        'Makes a secret, or TLS credentials. What a secret holds is told to nobody; `data` is for sockets that nobody else reads, as this one.',
      arguments: objectOptions,
      run: (options) => objects.add(options),
    }) as Command,
    'object-del': command({
      about: 'Forgets an object. What was opened with it stays open.',
      arguments: struct({ id: str }),
      run: ({ id }) => objects.remove(id),
    }) as Command,
  };
}
