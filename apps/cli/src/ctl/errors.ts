import { FailureWithCode } from '../failure.ts';

/**
 * Why something asked of a server was not done.
 * - `CTL_CONNECT`: there is no connection. The message says what to do.
 * - `CTL_GONE`: the connection was lost; what was under way may have been done or not.
 * - `CTL_TIMEOUT`: the time of `--timeout` is up.
 * - `CTL_NO_JOB`, `CTL_NO_NODE`: nothing is called so; `details.known` is what there is.
 * - `CTL_NOT_READY`: the job is not where the verb makes sense.
 * - `CTL_JOB_FAILED`, `CTL_JOB_CANCELLED`: how a job ended that was waited for.
 */
export type CtlErrorCode =
  | 'CTL_CONNECT'
  | 'CTL_GONE'
  | 'CTL_TIMEOUT'
  | 'CTL_NO_JOB'
  | 'CTL_NO_NODE'
  | 'CTL_NOT_READY'
  | 'CTL_JOB_FAILED'
  | 'CTL_JOB_CANCELLED';

/** As `timeout` of the core utilities. */
const TIME_IS_UP = 124;
const CANCELLED = 2;

const EXIT_CODES: Readonly<Partial<Record<CtlErrorCode, number>>> = {
  CTL_TIMEOUT: TIME_IS_UP,
  CTL_JOB_CANCELLED: CANCELLED,
};

/** What `downfold ctl` could not do. */
export class CtlError extends FailureWithCode<CtlErrorCode> {
  override readonly name: string = 'CtlError';

  constructor(
    code: CtlErrorCode,
    message: string,
    details: FailureWithCode['details'] = {},
    cause?: unknown,
  ) {
    super(EXIT_CODES[code] ?? 1, code, message, details, cause);
  }
}
