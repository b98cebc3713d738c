import { type Answered, COMMAND, ERRNO, type Errno } from '@downfold/nbd';
import { Distribution } from './distribution.ts';

const ERRNOS = Object.keys(ERRNO) as readonly Errno[];

/** What became of the requests of one command. Numbers are kept in arrays: no object is made when they become large. */
export class CommandCounters {
  readonly command: string;
  /** Of those that the disk was asked to do: what was refused took no time. */
  readonly duration: Distribution = new Distribution();
  /** Requests, and bytes. */
  readonly #sums = new Float64Array(2);
  readonly #errors = new Float64Array(ERRNOS.length);

  constructor(command: string) {
    this.command = command;
  }

  /** @param count requests, of which the other figures are the mean */
  count(length: number, errno: Errno | null, milliseconds: number, count = 1): void {
    this.#sums[0] = this.requests + count;
    if (milliseconds > 0) this.duration.observe(milliseconds / 1000, count);
    if (errno === null) this.#sums[1] = this.bytes + length * count;
    else this.#errors[ERRNOS.indexOf(errno)] = this.errorsOf(errno) + count;
  }

  get requests(): number {
    return this.#sums[0] ?? 0;
  }

  /** Of those that succeeded. */
  get bytes(): number {
    return this.#sums[1] ?? 0;
  }

  errorsOf(errno: Errno): number {
    return this.#errors[ERRNOS.indexOf(errno)] ?? 0;
  }

  get errors(): readonly (readonly [errno: Errno, count: number])[] {
    return ERRNOS.map((errno) => [errno, this.errorsOf(errno)]);
  }
}

/** The commands by their numbers; under one more name whatever else clients send, so that they cannot make up names. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [COMMAND.read, 'read'],
  [COMMAND.write, 'write'],
  [COMMAND.flush, 'flush'],
  [COMMAND.trim, 'trim'],
  [COMMAND.cache, 'cache'],
  [COMMAND.writeZeroes, 'write_zeroes'],
  [COMMAND.blockStatus, 'block_status'],
]);

/** What became of the requests of an export. */
export class ExportCounters {
  readonly #byNumber: ReadonlyMap<number, CommandCounters> = new Map(
    [...NAMES].map(([number, name]) => [number, new CommandCounters(name)]),
  );
  readonly #other: CommandCounters = new CommandCounters('other');

  get commands(): readonly CommandCounters[] {
    return [...this.#byNumber.values(), this.#other];
  }

  /** Called once for each request: counts, makes nothing. */
  readonly answered: Answered = (command, length, errno, milliseconds, count) => {
    (this.#byNumber.get(command) ?? this.#other).count(length, errno, milliseconds, count);
  };
}
