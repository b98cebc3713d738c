import {
  type ChainEnvironment,
  type ChainLayer,
  type ChainPolicy,
  identityKey,
} from '@downfold/chain';
import type { ImageSecret } from '@downfold/image';
import { isUrl } from '@downfold/storage';
import { type Access, environmentFor } from '../environment.ts';
import { ServerError } from '../errors.ts';
import type { Log } from '../log.ts';
import {
  type BlockdevOptions,
  type BlockdevRef,
  type FormatName,
  type ImageOptions,
  isProtocol,
  keySecretOf,
  type ProtocolOptions,
} from '../qmp/schema/nodes.ts';
import { Disk } from './disk.ts';
import { filenameOf } from './filename.ts';
import { type FileNode, type GraphNode, type ImageNode, layerOf } from './node.ts';
import { NodeTable } from './node-table.ts';
import { type OpenLayers, openSingle, openWhole, realPath } from './open.ts';
import { inWordsOfServer } from './opening-errors.ts';
import { successorOf } from './superseded.ts';

/** All nodes by name: files, images, and the disks that images make up. An image is a layer of one disk at a time. */
export class Graph extends NodeTable implements AsyncDisposable {
  readonly #access: Access;
  readonly #log: Log | null;

  /** @param log told of what is not locked */
  constructor(access: Access, log: Log | null = null) {
    super();
    this.#access = access;
    this.#log = log;
  }

  /** Makes a node, and those that are written out in it. On failure there is none of them. */
  async add(options: BlockdevOptions): Promise<GraphNode> {
    if (options['node-name'] === undefined)
      throw new ServerError('SERVER_NODE', "'node-name' must be specified for the root node");
    const made: GraphNode[] = [];
    try {
      return await this.#make(options, made, false);
    } catch (cause) {
      for (const node of made.reverse()) await this.#forget(node);
      return inWordsOfServer(cause);
    }
  }

  /**
   * The short form: a disk under a name, with all that lies below it. Resolves with the path of the image that was named, and of the one that
   * is the disk.
   */
  async addDisk(
    name: string,
    file: string,
    format: FormatName,
  ): Promise<{ readonly named: string; readonly path: string }> {
    const environment = environmentFor(file, this.#access);
    const path = await realPath(file, environment);
    const successor = await successorOf(path, format, environment).catch(inWordsOfServer);
    const at = successor ?? { path, format };
    const whole = await openWhole(at.path, at.format, environment).catch(inWordsOfServer);
    const open = await this.#unshared(whole);
    this.#addLayers(name, open, new Disk(open, environment, (layers) => this.#follow(layers)));
    return { named: path, path: at.path };
  }

  /** @throws ServerError `SERVER_IN_USE`, `SERVER_NODE` */
  async remove(name: string): Promise<void> {
    const node = this.node(name);
    if (node.kind === 'filter') throw inUse(name, `job '${node.use.id}'`);
    if (node.kind === 'file') {
      const user = [...this.nodes.values()].find(
        (one) => one.kind === 'image' && one.file === node,
      );
      if (user !== undefined) throw inUse(name, `node '${user.name}'`);
      this.nodes.delete(name);
      return;
    }
    const { disk } = node;
    if (disk === null) return this.#remove(node);
    const below = disk.layers.indexOf(layerOf(node)?.layer as ChainLayer);
    const above = disk.layers[below + 1];
    if (above !== undefined) throw inUse(name, `node '${this.nodeOf(above).name}'`);
    disk.assertUnused('is in use');
    await this.#uncover(node, disk);
  }

  /** Changes whether nodes may be written; all or none. @throws ServerError `SERVER_NODE` when anything else is different */
  reopen(options: readonly BlockdevOptions[]): void {
    const nodes = options.map((wanted) => ({ wanted, node: this.node(wanted['node-name'] ?? '') }));
    for (const { wanted, node } of nodes) {
      if (node.kind === 'filter') throw inUse(node.name, `job '${node.use.id}'`);
      const same = node.kind === 'file' ? isSameFile(wanted, node) : this.#isSame(wanted, node);
      if (!same)
        throw new ServerError(
          'SERVER_UNSUPPORTED',
          `Cannot change an option of '${node.name}' but 'read-only'`,
          { node: node.name },
        );
      const { 'read-only': readOnly = false } = wanted;
      if (readOnly && node.kind === 'image' && node.disk?.writable === true)
        node.disk.assertUnused('is written to');
    }
    for (const { wanted, node } of nodes)
      if (node.kind !== 'filter') node.readOnly = wanted['read-only'] ?? false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await using stack = new AsyncDisposableStack();
    for (const disk of this.disks) stack.use(disk);
    this.nodes.clear();
  }

  async #make(options: BlockdevOptions, made: GraphNode[], implicit: boolean): Promise<GraphNode> {
    const node = isProtocol(options)
      ? await this.#makeFile(options, implicit)
      : await this.#makeImage(options, made, implicit);
    made.push(node);
    return node;
  }

  async #makeFile(options: ProtocolOptions, implicit: boolean): Promise<FileNode> {
    const { driver } = options;
    const filename = filenameOf(options);
    const path = await realPath(filename, environmentFor(filename, this.#access));
    const name = options['node-name'] ?? this.freeName(path);
    this.assertFree(name, implicit && options['node-name'] === undefined);
    if (isUrl(path))
      this.#log?.warn(
        `${path}: lies behind a server, where there are no locks: nobody else may write to it`,
      );
    const readOnly = options['read-only'] ?? false;
    const node: FileNode = { kind: 'file', driver, name, implicit, filename, path, readOnly };
    this.nodes.set(name, node);
    return node;
  }

  async #makeImage(
    options: ImageOptions,
    made: GraphNode[],
    implicit: boolean,
  ): Promise<ImageNode> {
    const name = options['node-name'];
    if (name !== undefined) this.assertFree(name, false);
    const file = await this.#refer(options.file, made);
    if (file.kind !== 'file')
      throw new ServerError('SERVER_UNSUPPORTED', `'${file.name}' is no file`, { node: file.name });
    const { secrets } = this.#access;
    const keySecret = keySecretOf(options);
    const secret = secrets.named(file.path, keySecret);
    const environment = this.#environmentOf(file, secret);
    const successor = await successorOf(file.path, options.driver, environment);
    if (successor !== null)
      throw new ServerError(
        'SERVER_SUPERSEDED',
        `${file.path}: was committed, and is not the disk any more; the disk is '${successor.path}'`,
        { image: file.path, successor: successor.path },
      );
    const below = await this.#below(options.backing, made);
    const opening = options.backing === undefined ? openWhole : openSingle;
    const open = await this.#unshared(await opening(file.path, options.driver, environment));
    const layers = [...((await below?.surrender(open.locks)) ?? []), ...open.layers];
    const whole = { layers, locks: open.locks };
    const disk = new Disk(whole, environment, (now) => this.#follow(now));
    secrets.keep(file.path, secret);
    return this.#addLayers(name ?? this.freeName(file.path), whole, disk, {
      file,
      implicit,
      readOnly: options['read-only'] ?? false,
      discard: options.discard === 'unmap',
      keySecret,
    });
  }

  /** What an image is opened in that has this secret, whatever another node of the file has. */
  #environmentOf({ filename, path }: FileNode, secret: ImageSecret | null): ChainEnvironment {
    const environment = environmentFor(filename, this.#access);
    const { secretOf } = environment.policy;
    const policy: ChainPolicy = {
      ...environment.policy,
      secretOf: (at) => (at === path ? secret : secretOf(at)),
    };
    return { ...environment, policy };
  }

  /** An image is a layer of one disk: what a job does to that would change the other. Closes what is refused. */
  async #unshared(open: OpenLayers): Promise<OpenLayers> {
    for (const layer of open.layers) {
      const node = this.known(layer);
      if (node === null) continue;
      for (const { image } of open.layers) await image[Symbol.asyncDispose]();
      await open.locks[Symbol.asyncDispose]();
      throw new ServerError(
        'SERVER_IN_USE',
        `${layer.facts.path}: is node '${node.name}' already, and an image is a layer of one disk only`,
        { image: layer.facts.path, node: node.name },
      );
    }
    return open;
  }

  /** What is to lie below a new image; null: nothing that is said here. */
  async #below(backing: ImageOptions['backing'], made: GraphNode[]): Promise<Disk | null> {
    if (backing === undefined || backing === null || backing === '') return null;
    const node = await this.#refer(backing, made);
    const { disk } = this.root(node.name);
    disk.assertUnused('cannot become a backing file');
    return disk;
  }

  async #refer(ref: BlockdevRef, made: GraphNode[]): Promise<GraphNode> {
    return typeof ref === 'string' ? this.node(ref) : this.#make(ref, made, true);
  }

  /** Nodes for the layers of a disk that have none yet. Returns the uppermost. */
  #addLayers(
    name: string,
    { layers }: Pick<OpenLayers, 'layers'>,
    disk: Disk,
    top: Partial<Omit<ImageNode, 'name'>> = {},
  ): ImageNode {
    let last: ImageNode | null = null;
    for (const layer of layers) {
      const isTop = layer === layers.at(-1);
      last = this.known(layer) ?? this.#addLayer(layer, isTop ? name : null, isTop ? top : {});
      last.disk = disk;
    }
    return last as ImageNode;
  }

  #addLayer(
    { facts }: ChainLayer,
    given: string | null,
    {
      file,
      implicit = given === null,
      readOnly = false,
      discard = true,
      keySecret = null,
    }: Partial<ImageNode>,
  ): ImageNode {
    const name = given ?? this.freeName(facts.path);
    const node: ImageNode = {
      kind: 'image',
      name,
      implicit,
      file: file ?? this.addFile(facts.path, `${name}:file`),
      format: facts.format as FormatName,
      identity: identityKey(facts.identity),
      readOnly,
      discard,
      keySecret,
      disk: null,
    };
    this.nodes.set(name, node);
    return node;
  }

  /** Other layers make up a disk: nodes of those that left it have none any more. */
  #follow(layers: readonly ChainLayer[]): void {
    const keys = new Set(layers.map(({ facts }) => identityKey(facts.identity)));
    const first = layers[0];
    if (first === undefined) return;
    const disk = this.known(first)?.disk ?? null;
    for (const node of [...this.nodes.values()]) {
      if (node.kind !== 'image' || node.disk === null) continue;
      if (keys.has(node.identity)) node.disk = disk;
      if (keys.has(node.identity) || node.disk !== disk) continue;
      node.disk = null;
      if (node.implicit) this.drop(node);
    }
  }

  async #uncover(node: ImageNode, disk: Disk): Promise<void> {
    await disk.uncover();
    this.#remove(node);
    // layers that nobody named go with the one above
    for (let next = disk.layers.at(-1); next !== undefined; next = disk.layers.at(-1)) {
      const below = this.nodeOf(next);
      if (!below.implicit) return;
      await disk.uncover();
      this.#remove(below);
    }
  }

  #remove(node: ImageNode): void {
    this.drop(node);
    this.#access.secrets.forget(node.file.path);
  }

  async #forget(node: GraphNode): Promise<void> {
    if (node.kind === 'image' && node.disk !== null) await this.#uncover(node, node.disk);
    else this.nodes.delete(node.name);
  }

  #isSame(wanted: BlockdevOptions, node: ImageNode): boolean {
    if (isProtocol(wanted) || wanted.driver !== node.format) return false;
    const { file, backing, discard = 'ignore' } = wanted;
    const below = node.disk?.layers[(layerOf(node)?.index ?? 0) - 1];
    const stands = below === undefined ? null : this.nodeOf(below).name;
    return (
      file === node.file.name &&
      (backing === undefined || (backing || null) === stands) &&
      (discard === 'unmap') === node.discard &&
      keySecretOf(wanted) === node.keySecret
    );
  }
}

function inUse(name: string, by: string): ServerError {
  return new ServerError('SERVER_IN_USE', `Node '${name}' is busy: ${by} uses it`, { node: name });
}

function isSameFile(wanted: BlockdevOptions, node: FileNode): boolean {
  return isProtocol(wanted) && filenameOf(wanted) === node.filename;
}
