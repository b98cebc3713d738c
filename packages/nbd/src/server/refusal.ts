import type { Request } from '../codec/request.ts';
import { COMMAND, COMMAND_FLAG, type Errno } from '../protocol.ts';
import type { Session } from './haggling.ts';

/** Why a request is not done. */
export interface Refusal {
  readonly errno: Errno;
  readonly reason: string;
}

const CHANGES: readonly number[] = [COMMAND.write, COMMAND.writeZeroes, COMMAND.trim];

/** Flags that a command may carry. All of them may carry FUA: clients are known to set it anywhere. */
function allowedFlags({ command }: Request, { style, contexts, export: of }: Session): number {
  const { fua, noHole, df, reqOne, fastZero, payloadLength } = COMMAND_FLAG;
  switch (command) {
    case COMMAND.read:
      return style === 'simple' ? fua : fua | df;
    case COMMAND.write:
      return style === 'extended' ? fua | payloadLength : fua;
    case COMMAND.writeZeroes:
      return fua | noHole | (of.supports.fastZero ? fastZero : 0);
    case COMMAND.blockStatus:
      return fua | reqOne | (style === 'extended' && contexts.size > 0 ? payloadLength : 0);
    default:
      return fua;
  }
}

function isKnown({ command }: Request, { export: of, contexts }: Session): boolean {
  if (command === COMMAND.trim) return of.readOnly || of.supports.trim;
  if (command === COMMAND.cache) return of.supports.cache;
  if (command === COMMAND.blockStatus) return contexts.size > 0;
  return CHANGES.includes(command) || command === COMMAND.read || command === COMMAND.flush;
}

/**
 * Why `request` must not reach the export; `null` when it may. Source: proto.md, "Request types" and "Error values".
 * @param length bytes the request is about, wherever it says so
 */
export function refusal(request: Request, length: number, session: Session): Refusal | null {
  const { command, flags, offset } = request;
  const { export: of, style } = session;
  const no = (errno: Errno, reason: string): Refusal => ({ errno, reason });
  if (!isKnown(request, session)) return no('EINVAL', 'this export does not know the command');
  if ((flags & ~allowedFlags(request, session)) !== 0)
    return no('EINVAL', 'the command does not take these flags');
  const changes = CHANGES.includes(command);
  if (changes && of.readOnly) return no('EPERM', 'the export is read-only');
  if (command === COMMAND.flush)
    return offset === 0 && length === 0 ? null : no('EINVAL', 'a flush is of the whole export');
  if (command === COMMAND.write && request.payload?.length !== length && length > 0)
    return no('EINVAL', 'a write comes with its data');
  const carries = command === COMMAND.write || command === COMMAND.read;
  if (carries && length > of.blockSize.maximumPayload) {
    const overflow = command === COMMAND.read && style !== 'simple';
    return no(overflow ? 'EOVERFLOW' : 'EINVAL', 'more bytes than this export takes at once');
  }
  if (!(length <= of.size && offset <= of.size - length)) {
    const noSpace = command === COMMAND.write || command === COMMAND.writeZeroes;
    return no(noSpace ? 'ENOSPC' : 'EINVAL', 'the range goes beyond the end of the export');
  }
  if (offset % of.blockSize.minimum !== 0 || length % of.blockSize.minimum !== 0)
    return no('EINVAL', `the range is not a multiple of ${of.blockSize.minimum} bytes`);
  if (command === COMMAND.blockStatus && length === 0) return no('EINVAL', 'the status of nothing');
  return null;
}
