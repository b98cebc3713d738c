import { DownfoldError } from '@downfold/units';

/**
 * Why the disk refused a request or a change of its chain. Errors of images and storage pass through as they are.
 * - `DEVICE_RANGE`: outside the disk.
 * - `DEVICE_READ_ONLY`: a change to a disk that is for reading.
 * - `DEVICE_CLOSED`: the disk is closed, or closing.
 * - `DEVICE_FLUSH_FAILED`: a flush failed, now or earlier. Final for all changes and flushes; reads go on.
 * - `DEVICE_UNSUPPORTED`: nothing was written: zeros that would not be fast, or a smaller disk.
 * - `DEVICE_OBSERVER_FAILED`: the bytes are in the active layer, but an observer that has to agree did not.
 * - `DEVICE_DRAINED`: would wait for the drained section that it is called from, or uses one that is over.
 * - `DEVICE_BAD_CHAIN`: layers that cannot take the place of those under the disk.
 */
export type DeviceErrorCode =
  | 'DEVICE_RANGE'
  | 'DEVICE_READ_ONLY'
  | 'DEVICE_CLOSED'
  | 'DEVICE_FLUSH_FAILED'
  | 'DEVICE_UNSUPPORTED'
  | 'DEVICE_OBSERVER_FAILED'
  | 'DEVICE_DRAINED'
  | 'DEVICE_BAD_CHAIN';

/** A refusal of the disk. `details.image` names the active layer, `details.offset` the byte where there is one. */
export class DeviceError extends DownfoldError<DeviceErrorCode> {
  override readonly name: string = 'DeviceError';
}
