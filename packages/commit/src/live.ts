import type { ChainLayer, ImageLocks } from '@downfold/chain';
import type { Image } from '@downfold/image';
import type { GuestRange } from '@downfold/units';

/** What a job may do to the disk while none of its requests runs. */
export interface LiveSection {
  /** The layers now, bottom first. */
  readonly layers: readonly ChainLayer[];
  /** Puts other layers under the disk. What was written to images that leave is flushed first; they are the job's from then on. */
  replace(layers: readonly ChainLayer[]): Promise<void>;
  /** As the disk's, which would wait for the section. */
  flush(): Promise<void>;
  /** The disk takes no more changes: it is not known any more which image is the disk. Reads go on. */
  fail(cause: unknown): void;
}

/** How a drained section went. */
export interface SectionTimes {
  /** Milliseconds until the requests before it were over. */
  readonly drainMs: number;
  /** Milliseconds that the work took. */
  readonly workMs: number;
  /** Requests that came meanwhile and were held. */
  readonly held: number;
}

/** What a job reports of a section: what it was for (`reopen`, `relink`, `publish`, `pivot`), and how long requests were held. */
export interface SectionReport extends SectionTimes {
  readonly what: 'reopen' | 'relink' | 'publish' | 'pivot';
}

/** How a mirror goes about it. */
export interface ConvergeOptions {
  readonly signal?: AbortSignal | undefined;
  /** Resolves when so many bytes more may be copied. */
  pass(bytes: number): Promise<void>;
  /** Called after each piece; bytes. */
  copied(bytes: number): void;
}

/** Keeps a lower layer like the disk: for an active commit. From its start on it knows what the disk's requests change. */
export interface LiveMirror {
  /**
   * Copies what changed since the start of the mirror, in passes; then has every change written to the target before it is acknowledged, and
   * copies what is left. When it resolves the target shows what the disk shows, and goes on doing so; nothing of it need be durable.
   * A target that fails then is let go: no request fails with it. @throws what the target, or a read of the layers, failed with
   */
  converge(options: ConvergeOptions): Promise<void>;
  /** In a drained section: copies what is still different. @throws what the target failed with, now or earlier */
  finish(section: Pick<LiveSection, 'layers'>): Promise<void>;
  /** Resolves, with the cause, when the target failed after `converge` began to write changes to it. Never rejects. */
  readonly broken: Promise<unknown>;
  /** Is told of nothing any more. */
  stop(): void;
}

/** How long requests of the guest take beside jobs and without them. */
export interface GuestLatency {
  /** A job's work begins; it rests when the returned function is called. */
  beside(): () => void;
  /** How many times as long as without a job requests took lately; null: nobody uses the disk, or it is not known. */
  strain(): number | null;
}

/**
 * The disk that is in use while a job works beneath it. It owns its layers and its locks; a job borrows them. `Device` of `@downfold/device` is one.
 * Layers may change between any two calls (a snapshot is put on top): what a section or `holding` is given counts.
 */
export interface LiveDisk {
  /** Bytes. */
  readonly size: number;
  /** The layers now, bottom first; the last one is the active layer. */
  readonly layers: readonly ChainLayer[];
  /** The locks that are held on the layers, by path. A job raises one and lowers it again, and lets go those of layers that left the disk. */
  readonly locks: Pick<ImageLocks, 'change' | 'release'>;
  /** What a job's pace follows. */
  readonly latency: GuestLatency;
  /** Runs `work` while no request runs; those that come meanwhile are held. */
  drained<T>(
    work: (section: LiveSection) => Promise<T>,
  ): Promise<SectionTimes & { readonly value: T }>;
  /** Runs `work` while no request changes `range`, or none touches it. In the order of requests. */
  holding<T>(
    range: GuestRange,
    without: 'changes' | 'requests',
    work: (layers: readonly ChainLayer[]) => Promise<T>,
  ): Promise<T>;
  /** Makes durable what the disk's requests changed. */
  flush(): Promise<void>;
  /** Leaves a lower layer out of the disk's flushes until the returned function is called: the job flushes it by itself. */
  exemptFromFlush(image: Image): () => void;
  /** Starts to keep `target`, a lower layer that is open for writing, like the disk. */
  mirror(target: Image): LiveMirror;
}

/** How a job whose top is the active layer ends. */
export interface ActiveEnding {
  /** Called once: base shows what the disk shows, durably, and is kept so. */
  ready(): void;
  /** Resolves with what the user wants: base becomes the disk, or stays a copy as of the end. Rejects when the job is to stop by force. */
  ended(): Promise<'complete' | 'cancel'>;
}
