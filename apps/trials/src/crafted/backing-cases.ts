import { type Companion, type CraftedCase, type Expected, STANDARD_VIEW } from './case.ts';
import { qcow2 } from './qcow2.ts';
import type { SparseFile } from './sparse.ts';

const forbidden: Expected = { codes: ['CHAIN_FORBIDDEN_NAME'] };
const outside: Expected = { codes: ['CHAIN_OUTSIDE_ROOTS'] };
const loop: Expected = { codes: ['CHAIN_LOOP'] };

/** Layers a policy allows by default are 64; this chain has more. */
const TOO_DEEP = 70;

function backed(
  name: string,
  because: string,
  expected: Expected,
  backing: string | Uint8Array,
  qemu: CraftedCase['qemu'],
  rest: { format?: string | null; companions?: readonly Companion[] } = {},
): CraftedCase {
  const { format = 'qcow2', companions = [] } = rest;
  const image = qcow2({ backing: { name: backing, format } });
  return { name, because, expected, qemu, image, companions };
}

const names: readonly CraftedCase[] = [
  backed(
    'backing_nul',
    'a name with a NUL: C stops there, others do not',
    forbidden,
    'base.raw\0../outside/secret.raw',
    'accepts-broken',
    {
      format: 'raw',
      companions: [{ name: 'base.raw', file: { length: 1 << 20, pieces: [] } }],
    },
  ),
  backed(
    'backing_newline',
    'a name with control characters',
    forbidden,
    'a\n\u001b[2Jb.raw',
    'refuses',
  ),
  backed(
    'backing_not_utf8',
    'a name that is not UTF-8',
    { codes: ['CHAIN_FORBIDDEN_NAME', 'IMAGE_UNSUPPORTED'] },
    Uint8Array.of(0x66, 0xff, 0xfe, 0x6f),
    'refuses',
  ),
  backed(
    'backing_json',
    'json: opens any driver (CVE-2024-4467)',
    forbidden,
    'json:{"driver":"raw","file":{"driver":"file","filename":"../outside/secret.raw"}}',
    'follows',
  ),
  backed('backing_nbd', 'nbd: connects to a server', forbidden, 'nbd:localhost:1', 'refuses', {
    format: 'raw',
  }),
  backed(
    'backing_nbd_url',
    'nbd:// connects to a server',
    forbidden,
    'nbd://localhost:1/x',
    'refuses',
    { format: 'raw' },
  ),
  backed(
    'backing_http',
    'https:// connects to a server',
    forbidden,
    'https://localhost:1/x',
    'refuses',
    { format: 'raw' },
  ),
  backed('backing_fat', 'fat: shows a directory as a disk', forbidden, 'fat:/etc', 'follows', {
    format: 'raw',
  }),
  backed(
    'backing_no_format',
    'no format: QEMU probes, which a guest can exploit',
    { codes: ['CHAIN_NO_FORMAT'] },
    'base.raw',
    'follows',
    {
      format: null,
      companions: [{ name: 'base.raw', file: { length: 1 << 20, pieces: [] } }],
    },
  ),
  backed(
    'backing_unknown_format',
    'a format that is not ours',
    {
      codes: ['CHAIN_UNKNOWN_FORMAT'],
    },
    'base.vmdk',
    'refuses',
    { format: 'vmdk', companions: [{ name: 'base.vmdk', file: { length: 1 << 20, pieces: [] } }] },
  ),
  {
    name: 'backing_name_1024',
    because: 'a name one byte longer than the format allows',
    expected: { codes: ['IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: qcow2({ backing: { name: 'x'.repeat(1024), format: 'qcow2' } }),
  },
  {
    name: 'backing_name_2_31',
    because: 'a name of 2^31 bytes',
    expected: { codes: ['IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: qcow2({
      backing: { name: 'base', format: 'qcow2' },
      header: { backingSize: 0x8000_0000 },
    }),
  },
  {
    name: 'backing_offset_past_header',
    because: 'the name lies outside the header cluster',
    expected: { codes: ['IMAGE_CORRUPT'] },
    qemu: 'refuses',
    image: qcow2({
      backing: { name: 'base', format: 'qcow2' },
      header: { backingOffset: 2 ** 40 },
    }),
  },
];

const places: readonly CraftedCase[] = [
  backed('backing_absolute', 'an absolute path of the host', outside, '/etc/passwd', 'follows', {
    format: 'raw',
  }),
  backed(
    'backing_dotdot',
    'a path that climbs out of the directory',
    outside,
    '../outside/secret.raw',
    'follows',
    { format: 'raw' },
  ),
  backed(
    'backing_symlink',
    'a link that leads out of the directory',
    outside,
    'link.raw',
    'follows',
    {
      format: 'raw',
      companions: [{ name: 'link.raw', link: '../outside/secret.raw' }],
    },
  ),
  backed(
    'backing_symlinked_directory',
    'a linked directory on the way',
    outside,
    'there/secret.raw',
    'follows',
    {
      format: 'raw',
      companions: [{ name: 'there', link: '../outside' }],
    },
  ),
  backed(
    'backing_device',
    'a link to a character device',
    {
      codes: ['CHAIN_OUTSIDE_ROOTS', 'STORAGE_NOT_REGULAR'],
    },
    'zero',
    'hangs',
    { format: 'raw', companions: [{ name: 'zero', link: '/dev/zero' }] },
  ),
  backed(
    'backing_fifo',
    'a FIFO: opening it waits for ever',
    {
      codes: ['STORAGE_NOT_REGULAR'],
    },
    'fifo',
    'hangs',
    { format: 'raw', companions: [{ name: 'fifo', fifo: true }] },
  ),
  backed(
    'backing_directory',
    'a directory',
    { codes: ['STORAGE_NOT_REGULAR'] },
    'folder',
    'refuses',
    { format: 'raw', companions: [{ name: 'folder', directory: true }] },
  ),
  backed(
    'backing_missing',
    'no such file',
    { codes: ['CHAIN_MISSING'] },
    'nowhere.raw',
    'refuses',
    {
      format: 'raw',
    },
  ),
];

const layer = (below: string): SparseFile =>
  qcow2({ backing: { name: below, format: 'qcow2' }, l1: {}, l2: {}, data: new Uint8Array(0) });

const shapes: readonly CraftedCase[] = [
  backed('backing_self', 'an image that backs itself', loop, 'image.qcow2', 'hangs'),
  backed(
    'backing_self_hard_link',
    'an image that backs itself under another name',
    loop,
    'other.qcow2',
    'hangs',
    { companions: [{ name: 'other.qcow2', hardLink: true }] },
  ),
  backed('backing_loop_2', 'two images that back each other', loop, 'b.qcow2', 'hangs', {
    companions: [{ name: 'b.qcow2', file: layer('image.qcow2') }],
  }),
  backed(
    'backing_too_deep',
    `a chain of ${TOO_DEEP} layers`,
    { codes: ['CHAIN_TOO_DEEP'] },
    'layer0.qcow2',
    'reads',
    {
      companions: Array.from({ length: TOO_DEEP }, (_, index) => ({
        name: `layer${index}.qcow2`,
        file:
          index === TOO_DEEP - 1
            ? qcow2({ l1: {}, l2: {}, data: new Uint8Array(0) })
            : layer(`layer${index + 1}.qcow2`),
      })),
    },
  ),
  backed(
    'backing_raw_like_qcow2',
    'a raw disk whose guest wrote a qcow2 header (CVE-2008-2004)',
    {
      view: STANDARD_VIEW,
    },
    'base.raw',
    'reads',
    {
      format: 'raw',
      companions: [
        {
          name: 'base.raw',
          // as long as the cluster that hides it, so that the view stays the standard one
          file: qcow2({ backing: { name: '../outside/secret.raw', format: 'raw' }, length: 65536 }),
        },
      ],
    },
  ),
];

/** Backing references that lead somewhere they must not. */
export const backingCases: readonly CraftedCase[] = [...names, ...places, ...shapes];
