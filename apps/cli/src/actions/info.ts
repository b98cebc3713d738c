import { openChain, printable, readMark } from '@downfold/chain';
import type { Image, ImageDescription, ImageMark } from '@downfold/image';
import { type Access, backend, environmentFor, openAlone, unreadPolicy } from '../environment.ts';
import { qemuBytes } from '../output/bytes.ts';
import { factLines, snapshotInfo, snapshotTable } from '../output/image-facts.ts';
import { printResult } from '../output/print.ts';
import { absolute, besides, namesOf } from '../paths.ts';

/** Options of `info`. */
export interface InfoOptions extends Access {
  readonly format: string;
  readonly output: string;
  readonly backingChain?: boolean;
}

/** What is told of one image; keys are qemu-img's, `x-mark` is Downfold's. */
type Info = Record<string, unknown>;

/** `downfold info`: one image, or with `--backing-chain` all of the chain, top first. */
export async function info(file: string, options: InfoOptions): Promise<number> {
  const infos = options.backingChain === true ? await chainInfos(file, options) : null;
  if (infos === null) {
    await using opened = await openAlone(file, options.format, options, { describes: true });
    const { one, human } = await infoOf(opened.image, file);
    printResult(options, one, () => human);
    return 0;
  }
  printResult(
    options,
    infos.map(({ one }) => one),
    () => infos.map(({ human }) => human).join('\n\n'),
  );
  return 0;
}

/** The same as JSON and for people. */
interface Told {
  readonly one: Info;
  readonly human: string;
}

async function chainInfos(file: string, options: InfoOptions): Promise<readonly Told[]> {
  const access = { forceInvalid: true, allowLocked: true, ...options };
  const environment = environmentFor(file, access);
  await using chain = await openChain(absolute(file), options.format, {
    ...environment,
    policy: unreadPolicy(environment.policy),
  });
  const names = namesOf(chain, file);
  const infos: Told[] = [];
  for (const [index, { image }] of chain.layers.entries()) {
    infos.push(await infoOf(image, names[index] ?? image.label));
  }
  return infos.reverse();
}

async function infoOf(image: Image, filename: string): Promise<Told> {
  const { allocated } = await backend.facts(image.label);
  const { virtualSize, clusterSize } = image.geometry;
  const description = await image.describe();
  const { dirty, encrypted, snapshots, specific: data } = description;
  const mark = await readMark(image, backend);
  const one: Info = {
    ...(snapshots.length === 0 ? {} : { snapshots: snapshots.map(snapshotInfo) }),
    'virtual-size': virtualSize,
    filename,
    ...(clusterSize > 1 ? { 'cluster-size': clusterSize } : {}),
    format: image.format,
    'actual-size': allocated,
    ...(Object.keys(data).length > 0 ? { 'format-specific': { type: image.format, data } } : {}),
    ...(image.backing === null
      ? {}
      : {
          'full-backing-filename': besides(filename, image.backing.name),
          'backing-filename': image.backing.name,
          ...(image.backing.format === null
            ? {}
            : { 'backing-filename-format': image.backing.format }),
        }),
    ...(encrypted ? { encrypted } : {}),
    'dirty-flag': dirty,
    ...(mark === null ? {} : { 'x-mark': mark }),
  };
  return { one, human: humanInfo(one, image, description) };
}

function humanInfo(
  one: Info,
  image: Image,
  { dirty, encrypted, snapshots, specific }: ImageDescription,
): string {
  const { backing, geometry } = image;
  const full = String(one['full-backing-filename']);
  const lines = [
    `image: ${one['filename']}`,
    `file format: ${image.format}`,
    `virtual size: ${qemuBytes(geometry.virtualSize)} (${geometry.virtualSize} bytes)`,
    `disk size: ${qemuBytes(Number(one['actual-size']))}`,
  ];
  if (encrypted) lines.push('encrypted: yes');
  if (geometry.clusterSize > 1) lines.push(`cluster_size: ${geometry.clusterSize}`);
  if (dirty) lines.push('cleanly shut down: no');
  if (backing !== null)
    lines.push(
      `backing file: ${backing.name}${full === backing.name ? '' : ` (actual path: ${full})`}`,
    );
  if (backing?.format != null) lines.push(`backing file format: ${backing.format}`);
  if (snapshots.length > 0) lines.push('Snapshot list:', ...snapshotTable(snapshots));
  const facts = factLines(specific, '    ');
  if (facts.length > 0) lines.push('Format specific information:', ...facts);
  const mark = one['x-mark'] as ImageMark | undefined;
  if (mark !== undefined)
    lines.push(`downfold mark: ${mark.state} since ${mark.date} by job ${mark.job}`);
  return lines.map(printable).join('\n');
}
