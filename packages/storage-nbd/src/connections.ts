import { type ClientTls, connectNbd } from '@downfold/nbd';
import { StorageError } from '@downfold/storage';
import { calling } from './errors.ts';
import { NbdExport } from './nbd-export.ts';
import type { NbdLocation } from './nbd-uri.ts';

/** A connection, and how many use it. */
interface Shared {
  readonly connected: Promise<NbdExport>;
  users: number;
}

/**
 * One connection for each export, shared by all who have it open: a server may take no more (`qemu-nbd` by default), and those who change
 * parts of one block must know of each other. It ends with the last of them. One that is lost is not used again, and not mended.
 */
export class Connections {
  readonly #tls: ClientTls | undefined;
  readonly #shared = new Map<string, Shared>();

  constructor(tls: ClientTls | undefined) {
    this.#tls = tls;
  }

  /** The export, and what lets it go. */
  async take(location: NbdLocation): Promise<{ of: NbdExport; release: () => Promise<void> }> {
    const { uri } = location;
    const shared = this.#shared.get(uri) ?? this.#begin(location);
    shared.users += 1;
    const of = await shared.connected;
    const release = async (): Promise<void> => {
      shared.users -= 1;
      if (shared.users > 0) return;
      this.#forget(uri, shared);
      await of.close();
    };
    return { of, release };
  }

  #begin(location: NbdLocation): Shared {
    const { uri } = location;
    const shared: Shared = { connected: this.#connect(location), users: 0 };
    this.#shared.set(uri, shared);
    const forget = (): void => this.#forget(uri, shared);
    // one that could not be made is over too
    void shared.connected.then((of) => of.gone).then(forget, forget);
    return shared;
  }

  #forget(uri: string, shared: Shared): void {
    if (this.#shared.get(uri) === shared) this.#shared.delete(uri);
  }

  async #connect({ uri, server, exportName: name, tls: secure }: NbdLocation): Promise<NbdExport> {
    const tls = secure ? this.#tls : undefined;
    if (secure && tls === undefined)
      throw refusal(
        'STORAGE_ACCESS',
        uri,
        'wants TLS, and there are neither certificates nor a key',
      );
    const client = await calling(uri, 'open', null, () => connectNbd({ server, name, tls }));
    const { size, blockSize } = client.info;
    if (size % blockSize.minimum === 0) return new NbdExport(client, uri);
    await client.close();
    throw refusal(
      'STORAGE_UNSUPPORTED',
      uri,
      `its last bytes cannot be reached: it has ${size} bytes, in blocks of ${blockSize.minimum}`,
    );
  }
}

function refusal(
  code: 'STORAGE_ACCESS' | 'STORAGE_UNSUPPORTED',
  uri: string,
  problem: string,
): StorageError {
  return new StorageError(code, `${uri}: ${problem}`, { file: uri });
}
