import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SharedMap } from '@downfold/units';
import { expect, onTestFinished } from 'vitest';
import type {
  ChangeOptions,
  DirectReads,
  NbdServer,
  ServerLimits,
  ZeroOptions,
} from '../src/index.ts';
import { GRAIN, MemoryExport } from './memory-export.ts';
import { type Stage, stageOf } from './stage.ts';

/** In the file everything lies so much further on: who mixes up the two offsets reads something else. */
const SHIFT = 16 * GRAIN;

/** The same disk in a file as well, which threads read: the map knows all of its data, and none of its holes. */
export class MappedExport extends MemoryExport {
  override readonly direct: DirectReads;
  readonly #file: number;
  /** Ranges that the server asked to be learnt. */
  readonly asked: (readonly [offset: number, length: number])[] = [];

  constructor(...of: ConstructorParameters<typeof MemoryExport>) {
    super(...of);
    const directory = mkdtempSync(join(tmpdir(), 'downfold-nbd-'));
    this.#file = openSync(join(directory, 'disk'), 'w+');
    rmSync(directory, { recursive: true });
    onTestFinished(() => closeSync(this.#file));
    const map = new SharedMap();
    map.use(GRAIN);
    this.direct = { map, learn: (...range) => void this.asked.push(range) };
  }

  /** To be called once, before anything is written. */
  async ready(): Promise<this> {
    const { map } = this.direct;
    for (let at = 0; at < this.size; at += map.windowBytes) await map.claim(at);
    return this;
  }

  override fill(offset: number, bytes: Uint8Array): void {
    super.fill(offset, bytes);
    this.#publish(offset, bytes.length);
  }

  override async write(offset: number, source: Uint8Array, how: ChangeOptions): Promise<void> {
    await this.#apart(offset, source.length);
    await super.write(offset, source, how);
  }

  override async writeZeroes(offset: number, length: number, how: ZeroOptions): Promise<void> {
    await this.#apart(offset, length);
    await super.writeZeroes(offset, length, how);
    this.#publish(offset, length);
  }

  override async trim(offset: number, length: number, how: ChangeOptions): Promise<void> {
    await this.#apart(offset, length);
    await super.trim(offset, length, how);
    this.#publish(offset, length);
  }

  /** What the map says of bytes from `offset` on is not in the file any more: threads cannot read it, and have to ask. */
  lose(offset: number): void {
    ftruncateSync(this.#file, offset + SHIFT);
  }

  async #apart(offset: number, length: number): Promise<void> {
    this.direct.map.forget(offset, offset + length);
    await this.direct.map.idle();
  }

  /** Writes whole grains of what the range touches to the file, and tells of those that are data. */
  #publish(offset: number, length: number): void {
    const { map } = this.direct;
    for (let at = offset - (offset % GRAIN); at < offset + length; at += GRAIN) {
      if (!this.isData(at)) continue;
      writeSync(this.#file, this.bytes, at, Math.min(GRAIN, this.size - at), at + SHIFT);
      map.put(at, Math.min(this.size, at + GRAIN), this.#file, at + SHIFT);
    }
  }
}

/** A server of one mapped disk, `disk`. */
export type MappedStage = Stage<MappedExport>;

export async function mappedStage(
  size: number,
  limits: ServerLimits = { threads: 1 },
): Promise<MappedStage> {
  return stageOf(await new MappedExport(size).ready(), limits, 200);
}

/** Reads with `read` until a thread serves one more connection. */
export async function toThread(server: NbdServer, read: () => Promise<unknown>): Promise<void> {
  const before = server.threads.serving;
  await expect
    .poll(
      async () => {
        for (let time = 0; time < 10; time++) await read();
        return server.threads.serving;
      },
      { timeout: 10_000, interval: 20 },
    )
    .toBe(before + 1);
}
