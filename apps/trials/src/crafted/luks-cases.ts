import type { CraftedCase, Expected } from './case.ts';
import { PLACE, type Qcow2Spec, qcow2 } from './qcow2.ts';

// Layout: LUKS On-Disk Format Specification, version 1.2.3; where a qcow2 image has it: docs/interop/qcow2.txt of QEMU.

const CLUSTER = 65536;
const HEADER_POINTER = 0x0537be77;
const KEY_BYTES = 64;
const STRIPES = 4000;
const SLOTS = 8;
/** Bytes from one slot's key material to the next. */
const MATERIAL = Math.ceil((KEY_BYTES * STRIPES) / 4096) * 4096;
const AREA_AT = PLACE.end * CLUSTER;
const AREA = 4096 + SLOTS * MATERIAL;
const AREA_CLUSTERS = Math.ceil(AREA / CLUSTER);
const SECRET = 'open sesame';
const ACTIVE = 0x00ac_71f3;
const FREE = 0x0000_dead;

interface Slot {
  readonly state: number;
  readonly iterations: number;
  /** In sectors. */
  readonly material: number;
  readonly stripes: number;
}

interface Luks {
  readonly version: number;
  readonly cipher: string;
  readonly hash: string;
  readonly payload: number;
  readonly keyBytes: number;
  readonly digestIterations: number;
  /** What differs of a slot, by number; the first is in use. */
  readonly slots: Readonly<Record<number, Partial<Slot>>>;
}

/** A header whose slots nobody's passphrase opens: their key material is zeros. */
function headerOf(luks: Partial<Luks>): Uint8Array {
  const bytes = Buffer.alloc(208 + SLOTS * 48);
  bytes.write('LUKS\xba\xbe', 0, 'latin1');
  bytes.writeUInt16BE(luks.version ?? 1, 6);
  bytes.write(luks.cipher ?? 'aes', 8, 'latin1');
  bytes.write('xts-plain64', 40, 'latin1');
  bytes.write(luks.hash ?? 'sha256', 72, 'latin1');
  bytes.writeUInt32BE(luks.payload ?? AREA / 512, 104);
  bytes.writeUInt32BE(luks.keyBytes ?? KEY_BYTES, 108);
  bytes.writeUInt32BE(luks.digestIterations ?? 1000, 164);
  bytes.write('5e0c2f6e-4a51-4a0b-8d55-3a6f6f2c7b11', 168, 'latin1');
  for (let index = 0; index < SLOTS; index++) {
    const slot: Slot = {
      state: index === 0 ? ACTIVE : FREE,
      iterations: index === 0 ? 1000 : 0,
      material: (4096 + index * MATERIAL) / 512,
      stripes: STRIPES,
      ...luks.slots?.[index],
    };
    const at = 208 + index * 48;
    bytes.writeUInt32BE(slot.state, at);
    bytes.writeUInt32BE(slot.iterations, at + 4);
    bytes.writeUInt32BE(slot.material, at + 40);
    bytes.writeUInt32BE(slot.stripes, at + 44);
  }
  return bytes;
}

function pointer(offset: bigint, length: bigint): Uint8Array {
  const bytes = Buffer.alloc(16);
  bytes.writeBigUInt64BE(offset, 0);
  bytes.writeBigUInt64BE(length, 8);
  return bytes;
}

/** Where the image says that its LUKS header is. */
interface Area {
  readonly at?: bigint;
  readonly length?: bigint;
}

function luks(
  name: string,
  because: string,
  code: string,
  change: Partial<Luks>,
  { at = BigInt(AREA_AT), length = BigInt(AREA) }: Area = {},
): CraftedCase {
  const spec: Qcow2Spec = {
    header: { cryptMethod: 2 },
    extensions: [{ type: HEADER_POINTER, data: pointer(at, length) }],
    refcounts: new Array<number>(PLACE.end + AREA_CLUSTERS).fill(1),
    length: (PLACE.end + AREA_CLUSTERS) * CLUSTER,
    more: [{ at: AREA_AT, bytes: headerOf(change) }],
  };
  const expected: Expected = { codes: [code], at: 'open' };
  // QEMU tries the slots, for as long as that takes
  const qemu = code === 'IMAGE_LIMIT' ? 'hangs' : 'refuses';
  return { name, because, expected, qemu, secret: SECRET, image: qcow2(spec) };
}

const slot = (change: Partial<Slot>, index = 0): Partial<Luks> => ({ slots: { [index]: change } });
const corrupt = 'IMAGE_CORRUPT';

/** Encrypted images: what their headers cost, and where they say that keys lie. All are opened with a passphrase. */
export const luksCases: readonly CraftedCase[] = [
  luks(
    'luks_wrong_secret',
    'a passphrase opens no slot: nothing else is wrong',
    'IMAGE_WRONG_SECRET',
    {},
  ),
  luks(
    'luks_iterations_2_32_1',
    'a slot costs 2^32-1 iterations',
    'IMAGE_LIMIT',
    slot({ iterations: 0xffff_ffff }),
  ),
  luks('luks_digest_2_32_1', "the key's digest costs 2^32-1 iterations", 'IMAGE_LIMIT', {
    digestIterations: 0xffff_ffff,
  }),
  luks(
    'luks_slots_together',
    'eight slots cost too much together, none of them alone',
    'IMAGE_LIMIT',
    {
      slots: Object.fromEntries(
        Array.from({ length: SLOTS }, (_, index) => [
          index,
          { state: ACTIVE, iterations: 1 << 24 },
        ]),
      ),
    },
  ),
  luks('luks_iterations_0', 'a slot has no iterations', corrupt, slot({ iterations: 0 })),
  luks('luks_digest_0', "the key's digest has no iterations", corrupt, { digestIterations: 0 }),
  luks(
    'luks_material_past_end',
    'key material lies past the end of the file',
    corrupt,
    slot({ material: 1 << 24 }),
  ),
  luks(
    'luks_material_2_32_1',
    'key material lies at the last sector there is',
    corrupt,
    slot({ material: 0xffff_ffff }),
  ),
  luks('luks_material_is_header', 'key material is the header', corrupt, slot({ material: 0 })),
  luks('luks_slots_overlap', 'two slots share key material', corrupt, slot({ material: 8 }, 1)),
  luks(
    'luks_free_slot_overlaps',
    'a free slot overlaps one in use by a sector',
    corrupt,
    slot({ material: 8 + (KEY_BYTES * STRIPES) / 512 - 1 }, 1),
  ),
  luks('luks_stripes_3', 'a slot is split into 3 stripes', corrupt, slot({ stripes: 3 })),
  luks(
    'luks_stripes_2_32_1',
    'a slot is split into 2^32-1 stripes',
    corrupt,
    slot({ stripes: 0xffff_ffff }),
  ),
  luks(
    'luks_slot_state',
    'a slot is neither in use nor free',
    corrupt,
    slot({ state: 0x1234_5678 }),
  ),
  luks('luks_no_slot', 'no slot is in use', 'IMAGE_WRONG_SECRET', slot({ state: FREE })),
  luks('luks_payload_in_slots', 'data begins inside the key slots', corrupt, { payload: 16 }),
  luks('luks_key_2_31', 'a key of 2^31 bytes', 'IMAGE_UNSUPPORTED', { keyBytes: 2 ** 31 }),
  luks('luks_key_0', 'a key of no bytes', 'IMAGE_UNSUPPORTED', { keyBytes: 0 }),
  luks('luks_cipher_escape', 'the cipher is called by an escape sequence', 'IMAGE_UNSUPPORTED', {
    cipher: '\x1b[2J\x07',
  }),
  luks('luks_hash_none', 'there is no hash', 'IMAGE_UNSUPPORTED', { hash: '' }),
  luks('luks_version_2', 'a LUKS header of version 2', 'IMAGE_UNSUPPORTED', { version: 2 }),
  luks(
    'luks_area_past_end',
    'the LUKS header lies past the end of the file',
    corrupt,
    {},
    { at: 1n << 40n },
  ),
  luks(
    'luks_area_2_62',
    'the LUKS header lies where a JavaScript number would round',
    corrupt,
    {},
    { at: 1n << 62n },
  ),
  luks(
    'luks_area_is_data',
    'the LUKS header is a data cluster',
    corrupt,
    {},
    { at: BigInt(PLACE.data * CLUSTER) },
  ),
  luks(
    'luks_area_unaligned',
    'the LUKS header does not begin on a cluster',
    corrupt,
    {},
    { at: BigInt(AREA_AT + 512) },
  ),
  luks(
    'luks_area_2_62_long',
    'the LUKS header is 2^62 bytes long',
    corrupt,
    {},
    { length: 1n << 62n },
  ),
  luks(
    'luks_area_short',
    'the LUKS header ends before its key slots',
    corrupt,
    {},
    { length: 592n },
  ),
  {
    name: 'luks_no_header',
    because: 'encrypted, without a LUKS header',
    expected: { codes: [corrupt], at: 'open' },
    qemu: 'refuses',
    secret: SECRET,
    image: qcow2({ header: { cryptMethod: 2 } }),
  },
];
