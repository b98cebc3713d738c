import { bool, oneOf, optional, str, struct, type Type } from '@downfold/qmp';

/** A socket for a monitor: Unix, and it is the server. */
interface ChardevOptions {
  readonly backend: 'socket';
  readonly id: string;
  readonly path: string;
  readonly server?: boolean;
  readonly wait?: boolean;
}

/** `wait` can only be what it is: nobody is waited for. */
export const chardevOptions: Type<ChardevOptions> = struct({
  backend: oneOf(['socket']),
  id: str,
  path: str,
  server: optional(bool),
  wait: optional(bool),
});

export const monitorOptions: Type<{ readonly chardev: string; readonly mode?: 'control' }> = struct(
  {
    chardev: str,
    mode: optional(oneOf(['control'])),
    id: optional(str),
  },
);
