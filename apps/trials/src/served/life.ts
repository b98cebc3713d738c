import { readdir } from 'node:fs/promises';
import type { Bench, Served } from '@downfold/server/test/support.ts';
import type { Draw } from '../tools/draw.ts';
import { must } from '../tools/process.ts';
import type { Book } from './book.ts';
import { Writers } from './writers.ts';

/** A layer of the disk that is served. */
export interface Layer {
  readonly node: string;
  readonly path: string;
}

interface NodeName {
  readonly 'node-name': string;
}

/** What `query-named-block-nodes` tells, as far as it is looked at. */
interface NodeInfo extends NodeName {
  readonly file: string;
  readonly drv: string;
  readonly backing_file?: string;
}

/** One life of the server: from its start to its end, with writers at work. */
export class Life {
  readonly served: Served;
  readonly #bench: Bench;

  private constructor(bench: Bench, served: Served) {
    this.#bench = bench;
    this.served = served;
  }

  /** Starts `downfoldd` on an image. */
  static async start(bench: Bench, leaf: string, ...options: readonly string[]): Promise<Life> {
    return new Life(bench, await bench.disk(leaf, ...options));
  }

  /** Puts writers to work. */
  writers(book: Book, from: Draw): Promise<Writers> {
    return Writers.start(this.#bench.file('run/nbd.sock'), book, from);
  }

  /** The layers of the disk, bottom first. */
  async layers(): Promise<readonly Layer[]> {
    const [exported] = await this.served.execute<[NodeName]>('query-block-exports');
    const all = await this.served.execute<NodeInfo[]>('query-named-block-nodes', { flat: true });
    // nodes with a name of their own stay when their image has left the disk
    const nodes = all.filter(({ drv }) => drv === 'qcow2');
    const layers: Layer[] = [];
    for (let next = nodes.find((node) => node['node-name'] === exported['node-name']); next; ) {
      const { file, backing_file } = next;
      layers.unshift({ node: next['node-name'], path: file });
      next = nodes.find((node) => node.file === backing_file);
    }
    return layers;
  }

  /** The active layer. */
  async active(): Promise<Layer> {
    const [layer] = (await this.layers()).slice(-1);
    if (layer === undefined) throw new Error('the server has no disk');
    return layer;
  }

  /** Puts an overlay on top, made by the server or by QEMU. */
  async snapshot(name: string, from: Draw): Promise<void> {
    const { node, path } = await this.active();
    const file = this.#bench.file(`${name}.qcow2`);
    const isForeign = from.chance(0.5);
    if (isForeign) {
      const options = `cluster_size=${from.pick([4096, 65_536, 131_072])}`;
      // the server holds the locks
      const create = ['create', '-q', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', path];
      const size = (await must('qemu-img', ['info', '-U', '--output=json', path])).toString();
      const bytes = String((JSON.parse(size) as Record<string, unknown>)['virtual-size']);
      await must('qemu-img', [...create, '-o', options, file, bytes]);
    }
    await this.served.execute('blockdev-snapshot-sync', {
      device: node,
      'snapshot-file': file,
      'snapshot-node-name': name,
      ...(isForeign ? { mode: 'existing' } : {}),
    });
  }

  /** Waits until no job works any more; one that is ready is completed. */
  async idle(): Promise<void> {
    for (;;) {
      const jobs = await this.served.execute<{ id: string; status: string }[]>('query-jobs');
      if (jobs.length === 0) return;
      // between the question and the answer it may have gone on
      for (const { id, status } of jobs)
        if (status === 'ready') await this.served.execute('job-complete', { id });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** What the server reported as wrong. */
  get complaints(): readonly string[] {
    const { stderr } = this.served.server;
    return stderr
      .split('\n')
      .filter((line) => /failed|cannot|could not|error|given up|does not|unhandled/i.test(line));
  }

  async kill(): Promise<void> {
    await this.served.kill();
  }
}

/** Images of a directory. */
export async function imagesIn(directory: string): Promise<readonly string[]> {
  const names = await readdir(directory);
  return names.filter((name) => name.endsWith('.qcow2')).map((name) => `${directory}/${name}`);
}
