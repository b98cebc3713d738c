import type { Command } from 'commander';

/** What a command was doing when it failed, for the line that says so: ``open 'disk.qcow2'``. */
interface Deed {
  readonly doing: string;
  /** Exit code of a failure. Default 1. */
  readonly failed?: number;
}

/** Does the work of a command: its number becomes the exit code; what it throws is reported. */
export type Act = (deed: Deed, work: () => Promise<number>) => Promise<void>;

/**
 * One command: declares its arguments and options on the program, and imports its work (`actions/`) only when it is run, so
 * that no command pays for the others at start.
 */
export type Register = (program: Command, act: Act) => void;
