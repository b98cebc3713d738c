import { type Draw, draw } from '../tools/draw.ts';
import type { Place, Places } from './places.ts';

/** A piece of an image that is not as it was. */
interface Patch {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** How a mutant differs from the image it was made of. */
export interface Mutation {
  readonly patches: readonly Patch[];
  /** Bytes of the file in the end. */
  readonly length: number;
  /** What was done, for a report. */
  readonly told: readonly string[];
}

/** A mutation while it is made. */
interface Making {
  readonly image: Uint8Array;
  readonly places: Places;
  readonly random: Draw;
  readonly patches: Patch[];
  readonly told: string[];
  length: number;
}

const MUTATORS: readonly [Mutator, ...Mutator[]] = [
  boundary,
  boundary,
  boundary,
  boundary,
  nearby,
  nearby,
  bit,
  bit,
  alias,
  alias,
  alias,
  farAway,
  farAway,
  copied,
  exchanged,
  wiped,
  cut,
  longer,
];
type Mutator = (making: Making) => void;

/** One to four things wrong with a valid image, drawn from `seed`. */
export function mutate(image: Uint8Array, places: Places, seed: number): Mutation {
  const random = draw(seed);
  const making: Making = { image, places, random, patches: [], told: [], length: image.length };
  const times = random.pick([1, 1, 1, 1, 2, 2, 3, 4]);
  for (let done = 0; done < times; done++) random.pick(MUTATORS)(making);
  return making;
}

/** The mutant's bytes. */
export function mutated(image: Uint8Array, { patches, length }: Mutation): Uint8Array {
  const bytes = new Uint8Array(Math.max(image.length, length));
  bytes.set(image);
  for (const patch of patches) bytes.set(patch.bytes, patch.at);
  return bytes.slice(0, length);
}

/** Values that break arithmetic: around zero, the largest, the sign, what doubles round, and what shifts wrap. */
function extremes(bytes: number): readonly [bigint, ...bigint[]] {
  const bits = BigInt(bytes * 8);
  const [sign, most] = [1n << (bits - 1n), (1n << bits) - 1n];
  const wide =
    bytes === 8
      ? [
          1n << 53n,
          (1n << 53n) + 1n,
          (1n << 53n) - 1n,
          1n << 56n,
          1n << 32n,
          (1n << 32n) - 1n,
          1n << 31n,
          1n << 62n,
        ]
      : [];
  const some = [
    1n,
    2n,
    3n,
    7n,
    9n,
    16n,
    31n,
    32n,
    63n,
    64n,
    512n,
    4096n,
    65_536n,
    1n << 20n,
    1n << 25n,
  ];
  return [
    0n,
    ...some.filter((value) => value < most),
    sign,
    sign - 1n,
    sign + 1n,
    most,
    most - 1n,
    most / 2n,
    most / 4n,
    ...wide,
  ];
}

function boundary(making: Making): void {
  const place = anyPlace(making);
  set(making, place, making.random.pick(extremes(place.bytes)), 'becomes');
}

/** A little more or less, twice, half: off by one, and sizes that no longer fit. */
function nearby(making: Making): void {
  const place = anyPlace(making);
  const now = valueAt(making, place);
  const change = making.random.pick([
    now + 1n,
    now - 1n,
    now * 2n,
    now / 2n,
    now + 8n,
    now + 512n,
    now - 512n,
  ]);
  set(making, place, change, 'becomes');
}

function bit(making: Making): void {
  const place = anyPlace(making);
  const flipped = valueAt(making, place) ^ (1n << BigInt(making.random.integer(place.bytes * 8)));
  set(making, place, flipped, 'has a bit flipped:');
}

/** A pointer to a structure that it must not point to, now and then beside its beginning. */
function alias(making: Making): void {
  const { random, places } = making;
  const target = BigInt(places.targets[random.integer(places.targets.length)] ?? 0);
  const beside = random.pick([0n, 0n, 0n, 0n, 512n, 8n, BigInt(places.clusterSize)]);
  point(making, target + beside, 'points to');
}

/** A pointer to the end of the file, past it, and to where JavaScript's numbers, or the format, end. */
function farAway(making: Making): void {
  const { clusterSize, length } = making.places;
  const end = BigInt(Math.ceil(length / clusterSize) * clusterSize);
  const cluster = BigInt(clusterSize);
  const far = [
    end,
    end - cluster,
    end + cluster,
    1n << 31n,
    1n << 32n,
    1n << 40n,
    1n << 53n,
    (1n << 56n) - cluster,
    (1n << 62n) + cluster,
  ] as const;
  point(making, making.random.pick([...far] as [bigint, ...bigint[]]), 'points to');
}

/** What another place of the same width says. */
function copied(making: Making): void {
  const [place, other] = [anyPlace(making), anyPlace(making)];
  if (other.bytes === place.bytes)
    set(making, place, valueAt(making, other), `gets ${other.what},`);
  else boundary(making);
}

/** Two clusters, whole, in each other's place. */
function exchanged(making: Making): void {
  const [one, other] = [anyCluster(making), anyCluster(making)];
  patch(making, one, clusterAt(making, other));
  patch(making, other, clusterAt(making, one));
  making.told.push(`clusters at ${one} and ${other} are exchanged`);
}

/** A cluster full of one byte. */
function wiped(making: Making): void {
  const [at, byte] = [anyCluster(making), making.random.pick([0, 0, 0xff, 0x80, 1])];
  patch(making, at, new Uint8Array(clusterAt(making, at).length).fill(byte));
  making.told.push(`the cluster at ${at} is full of ${byte}`);
}

function cut(making: Making): void {
  const { random, image } = making;
  making.length = random.pick([
    random.integer(image.length),
    anyCluster(making),
    image.length - 1,
    image.length - 512,
  ]);
  making.length = Math.max(0, making.length);
  making.told.push(`the file ends at ${making.length}`);
}

function longer(making: Making): void {
  making.length += making.random.pick([1, 511, 512, making.places.clusterSize, 1 << 20]);
  making.told.push(`the file ends at ${making.length}`);
}

function anyPlace({ places, random }: Making): Place {
  const group = places.groups[random.integer(places.groups.length)] ?? [];
  const place = group[random.integer(group.length)];
  if (place === undefined) throw new Error('an image without places');
  return place;
}

function anyCluster({ places, random }: Making): number {
  return random.integer(Math.ceil(places.length / places.clusterSize)) * places.clusterSize;
}

function clusterAt({ image, places }: Making, at: number): Uint8Array {
  return image.subarray(at, at + places.clusterSize);
}

function valueAt({ image }: Making, { at, bytes }: Place): bigint {
  let value = 0n;
  for (let index = 0; index < bytes; index++)
    value = (value << 8n) | BigInt(image[at + index] ?? 0);
  return value;
}

function set(making: Making, { what, at, bytes }: Place, value: bigint, how: string): void {
  const word = BigInt.asUintN(bytes * 8, value);
  patch(
    making,
    at,
    Uint8Array.from({ length: bytes }, (_, index) =>
      Number((word >> BigInt((bytes - 1 - index) * 8)) & 0xffn),
    ),
  );
  making.told.push(`${what} ${how} ${word}`);
}

/** Keeps the flags of the entry, half of the time. */
function point(making: Making, target: bigint, how: string): void {
  const place = anyPlace(making);
  const flags = making.random.chance(0.5) ? valueAt(making, place) & 0xff00_0000_0000_01ffn : 0n;
  set(making, place, target | flags, how);
}

function patch({ patches, image }: Making, at: number, bytes: Uint8Array): void {
  // an image that was cut before has less than its places say
  if (at < image.length) patches.push({ at, bytes: bytes.subarray(0, image.length - at) });
}
