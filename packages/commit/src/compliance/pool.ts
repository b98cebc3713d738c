import type { LayerFacts, NodeId } from '@downfold/chain';
import { byteLength } from '@downfold/units';
import type { ViewFacts } from '../view.ts';
import { cellOf } from './cells.ts';
import { Disks } from './disks.ts';
import { SECTOR_BYTES, type Setting, type SettingImage } from './setting.ts';

/** A setting worked out: who is who, and what everybody shows before anything is done. Images by index. */
export class Pool {
  readonly setting: Setting;
  readonly initial: Disks;
  /** What each image shows, by image and sector of its own. */
  readonly shown: readonly (readonly number[])[];
  readonly facts: readonly LayerFacts[];
  /** The chain, bottom first. */
  readonly chain: readonly number[];
  /** The new backing chain as far as it is not in the chain, bottom first. */
  readonly onto: readonly number[];
  readonly base: number;
  readonly top: number;
  /** Images outside the chain that read through base or an intermediate and not through top. */
  readonly outsiders: readonly number[];
  /** Made when first asked for. */
  #viewFacts: ViewFacts | null = null;

  constructor(setting: Setting) {
    const { images, leaf, base, top, operation } = setting;
    this.setting = setting;
    this.initial = disksOf(this, images);
    this.shown = images.map((_, image) => this.initial.shown(image));
    this.facts = images.map((image) => factsOf(image, images));
    this.chain = this.#down(this.indexOf(leaf));
    this.base = base === null ? -1 : this.indexOf(base);
    this.top = this.indexOf(top);
    this.onto =
      operation !== 'rebase' || base === null
        ? []
        : this.#down(this.base).filter((image) => !this.chain.includes(image));
    this.outsiders = operation === 'commit' ? this.#outsiders() : [];
  }

  /** The content of what the client of the disk writes; nobody else has it. */
  get written(): number {
    return 255;
  }

  /** What the disk in use must show, by sector of top: what it showed, and what its client was told is written. */
  disk({ acknowledged }: { readonly acknowledged: boolean }): readonly number[] {
    const { client } = this.setting;
    const before = this.shown[this.top] as readonly number[];
    if (client == null || !acknowledged) return before;
    return before.with(client.sector, this.written);
  }

  indexOf(node: NodeId): number {
    return this.setting.images.findIndex(({ name }) => name === node);
  }

  nodeOf(image: number): NodeId {
    return (this.setting.images[image] as SettingImage).name;
  }

  nodesOf(images: readonly number[]): readonly NodeId[] {
    return images.map((image) => this.nodeOf(image));
  }

  image(index: number): SettingImage {
    return this.setting.images[index] as SettingImage;
  }

  /** Images that have this one as their backing file. */
  overlaysOf(image: number): readonly number[] {
    return [...this.facts.keys()].filter((one) => this.initial.link(one) === image);
  }

  /** Whether an image reads through another, or is it. */
  readsThrough(image: number, through: number): boolean {
    return this.#down(image).includes(through);
  }

  /** What the engine knows of the pool when it asks for a plan. */
  viewFacts(): ViewFacts {
    this.#viewFacts ??= this.#lookUp();
    return this.#viewFacts;
  }

  /** Whether an image's format can do this. */
  can(image: number, ability: 'deallocate' | 'stage'): boolean {
    return this.viewFacts().can((this.facts[image] as LayerFacts).format, ability);
  }

  #lookUp(): ViewFacts {
    const factsAt = (image: number): LayerFacts => this.facts[image] as LayerFacts;
    const others = this.chain.flatMap((backing) =>
      this.overlaysOf(backing)
        .filter((one) => !this.chain.includes(one) && !this.onto.includes(one))
        .map((one) => ({ backing: this.nodeOf(backing), facts: factsAt(one) })),
    );
    const linked = [
      ...this.chain,
      ...this.onto,
      ...others.map(({ facts }) => this.indexOf(facts.node)),
      ...this.outsiders,
    ];
    return {
      chain: this.chain.map(factsAt),
      onto: this.onto.map(factsAt),
      links: Object.fromEntries(linked.map((one) => [this.nodeOf(one), this.#backingOf(one)])),
      others,
      outsiders: this.outsiders.map(factsAt),
      dependents: this.#dependents(),
      can: (format, ability) =>
        ability === 'stage' ? format === 'model' && this.setting.stages : format === 'model',
    };
  }

  #backingOf(image: number): NodeId | null {
    return this.image(image).backing;
  }

  /** The images that one reads through, itself last. */
  #down(image: number): readonly number[] {
    const down: number[] = [];
    for (let at = image; at >= 0; at = this.initial.link(at)) down.unshift(at);
    return down;
  }

  #outsiders(): readonly number[] {
    const { chain, base, top } = this;
    const touched = chain.slice(chain.indexOf(base), chain.indexOf(top));
    return [...this.facts.keys()].filter(
      (image) => !chain.includes(image) && touched.includes(this.#attachedTo(image)),
    );
  }

  /** The image of the chain that one outside it reads through first; -1: none. */
  #attachedTo(image: number): number {
    return this.#down(image).findLast((one) => this.chain.includes(one)) ?? -1;
  }

  #dependents(): ViewFacts['dependents'] {
    const from = Math.max(0, this.chain.indexOf(this.base));
    const touched = this.chain.slice(from, this.chain.indexOf(this.top) + 1).reverse();
    return [...this.facts.keys()].flatMap((image) => {
      const through = touched.find((one) => this.readsThrough(image, one));
      return through === undefined || this.chain.includes(image)
        ? []
        : [
            {
              path: (this.facts[image] as LayerFacts).path,
              through: (this.facts[through] as LayerFacts).path,
            },
          ];
    });
  }
}

function disksOf(pool: Pick<Pool, 'indexOf'>, images: readonly SettingImage[]): Disks {
  const width = Math.max(...images.map(({ cells, unit }) => Math.ceil(cells.length / unit) * unit));
  const disks = new Disks(width, images.length);
  for (const [index, { cells, backing }] of images.entries()) {
    disks.setSize(index, cells.length);
    disks.setLink(index, backing === null ? -1 : pool.indexOf(backing));
    for (const [sector, letter] of [...cells].entries())
      disks.setCell(index, sector, cellOf(letter, index, sector));
  }
  return disks;
}

function factsOf(image: SettingImage, images: readonly SettingImage[]): LayerFacts {
  const backing = images.find(({ name }) => name === image.backing);
  const size = image.cells.length;
  const units = new Set<number>();
  for (const [sector, letter] of [...image.cells].entries())
    if (letter !== '-' && letter !== 'z') units.add(Math.floor(sector / image.unit));
  const allocated = units.size * image.unit * SECTOR_BYTES;
  return {
    node: image.name,
    path: pathOf(image),
    format: formatOf(image),
    identity: { device: '1', inode: image.name },
    geometry: {
      virtualSize: byteLength(size * SECTOR_BYTES),
      clusterSize: byteLength(image.flat ? 1 : image.unit * SECTOR_BYTES),
      allocationGranularity: byteLength(image.flat ? 1 : image.unit * SECTOR_BYTES),
    },
    backing:
      backing === undefined ? null : { name: pathOf(backing).slice(1), format: formatOf(backing) },
    mark: null,
    fingerprint: image.name,
    fileLength: allocated,
    allocated,
    modified: '1',
  };
}

function pathOf({ name }: SettingImage): string {
  return `/${name}.img`;
}

function formatOf({ flat }: SettingImage): string {
  return flat ? 'flat' : 'model';
}
