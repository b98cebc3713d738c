import type { MessagePort } from 'node:worker_threads';
import type { BlockSize, Style } from '../../protocol.ts';

/** A connection that a thread takes over, after the handshake. */
export interface Assignment {
  /** Descriptor of the socket, which stays the server's and open until the thread says that it is over. It does not block. */
  readonly socket: number;
  /** What the client sent already. */
  readonly begun: Uint8Array;
  readonly style: Style;
  /** Bytes of the export. */
  readonly size: number;
  readonly blockSize: BlockSize;
  /** Of a `SharedMap`, and the place of a reader in it. */
  readonly map: SharedArrayBuffer;
  readonly reader: number;
  /** Of a `Control`. */
  readonly control: SharedArrayBuffer;
  /** For what goes to and fro meanwhile. */
  readonly port: MessagePort;
}

/** To the thread. `replies`: bytes of one reply each, to be sent in order. `end`: sends what it has, and ends. */
export type ToThread =
  | { readonly replies: readonly (readonly Uint8Array[])[] }
  | { readonly end: true };

/** From the thread. */
export type FromThread =
  /** Bytes that the client sent: requests that the thread does not serve. */
  | { readonly passed: readonly Uint8Array<ArrayBuffer>[] }
  /** So many replies have left. */
  | { readonly sent: number }
  /** The client sends no more. */
  | { readonly ended: true }
  /** The thread does not touch the socket, nor any file, any more. `error`: why, when nobody asked it to end. */
  | { readonly over: true; readonly error: string | null };

/** A thread is ready. `bell`: descriptor of the event counter that wakes it. */
export interface Ready {
  readonly bell: number;
}
