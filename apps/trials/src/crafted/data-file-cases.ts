import type { Companion, CraftedCase, Expected } from './case.ts';
import { COPIED, PLACE, type Qcow2Spec, qcow2 } from './qcow2.ts';

const CLUSTER = 65536;
const DATA_FILE = 0x44415441;

/** An image whose guest data is in the file it names: its first cluster is the first of that file. External data files are allowed. */
function external(
  name: string,
  because: string,
  file: string | Uint8Array,
  expected: Expected,
  companions: readonly Companion[] = [],
  more: Qcow2Spec = {},
): CraftedCase {
  const image = qcow2({
    l2: { 0: COPIED },
    refcounts: [1, 1, 1, 1, 1],
    length: PLACE.data * CLUSTER,
    data: new Uint8Array(),
    ...more,
    header: { incompatible: 1 << 2, ...more.header },
    extensions: [{ type: DATA_FILE, data: Buffer.from(file) }, ...(more.extensions ?? [])],
  });
  return { name, because, expected, qemu: 'follows', allowDataFile: true, image, companions };
}

const refused = (code: string): Expected => ({ codes: [code], at: 'open' });
const outside = refused('CHAIN_OUTSIDE_ROOTS');
const noName = refused('CHAIN_FORBIDDEN_NAME');
const data = (length: number): Companion => ({
  name: 'data.raw',
  file: {
    length,
    pieces: [{ at: 0, bytes: new Uint8Array(Math.min(length, CLUSTER)).fill(0xc3) }],
  },
});
const secret: Companion = { name: 'data.raw', link: '../outside/secret.raw' };

/** External data files, with a policy that allows them: inside the directory, regular, and nothing else. */
export const dataFileCases: readonly CraftedCase[] = [
  external(
    'data_file_valid',
    'guest data is beside the image',
    'data.raw',
    { view: [{ at: 0, length: CLUSTER, byte: 0xc3 }], check: ['clean'] },
    [data(1 << 20)],
  ),
  external(
    'data_file_self',
    'the data file is the image itself',
    'image.qcow2',
    refused('CHAIN_LOOP'),
  ),
  external(
    'data_file_self_linked',
    'the data file is the image by another name',
    'data.raw',
    refused('CHAIN_LOOP'),
    [{ name: 'data.raw', hardLink: true }],
  ),
  external('data_file_absolute', 'the data file is a file of the host', '/etc/passwd', outside),
  external('data_file_parent', 'the data file lies outside', '../outside/secret.raw', outside),
  external('data_file_link', 'the data file is a link to the outside', 'data.raw', outside, [
    secret,
  ]),
  external(
    'data_file_directory',
    'the data file is a directory',
    'data.raw',
    refused('STORAGE_NOT_REGULAR'),
    [{ name: 'data.raw', directory: true }],
  ),
  external(
    'data_file_fifo',
    'the data file is a FIFO that nobody writes to',
    'data.raw',
    refused('STORAGE_NOT_REGULAR'),
    [{ name: 'data.raw', fifo: true }],
  ),
  external('data_file_device', 'the data file is a device without an end', '/dev/zero', outside),
  external('data_file_missing', 'the data file is not there', 'data.raw', refused('CHAIN_MISSING')),
  external('data_file_protocol', 'the data file is a server', 'nbd://127.0.0.1:10809/x', noName),
  external(
    'data_file_json',
    'the data file is a pseudo-file name of QEMU',
    'json:{"driver":"file","filename":"/etc/passwd"}',
    noName,
  ),
  external(
    'data_file_nul',
    'the name of the data file holds a NUL',
    'data.raw\0/../../outside/secret.raw',
    noName,
    [data(1 << 20)],
  ),
  external(
    'data_file_escape',
    'the name of the data file holds an escape sequence',
    'data\x1b[2J.raw',
    noName,
  ),
  external(
    'data_file_no_text',
    'the name of the data file is no text',
    new Uint8Array([0xff, 0xfe, 0xfd]),
    refused('IMAGE_UNSUPPORTED'),
  ),
  external(
    'data_file_short',
    'the data file ends inside the first cluster: the rest is zeros',
    'data.raw',
    { codes: ['IMAGE_CORRUPT'], view: [{ at: 0, length: 4096, byte: 0xc3 }] },
    [data(4096)],
  ),
  external(
    'data_file_compressed',
    'a compressed cluster in an image with a data file',
    'data.raw',
    { codes: ['IMAGE_CORRUPT'], at: 'read' },
    [data(1 << 20)],
    { l2: { 0: 1n << 62n } },
  ),
  external(
    'data_file_other_offset',
    'a guest cluster that is not in its own place',
    'data.raw',
    { codes: ['IMAGE_CORRUPT'], at: 'map' },
    [data(1 << 20)],
    { l2: { 0: COPIED | BigInt(CLUSTER) } },
  ),
  external(
    'data_file_is_backing',
    'the data file is the backing file too',
    'data.raw',
    refused('CHAIN_SHARED_DATA'),
    [data(1 << 20)],
    { backing: { name: 'data.raw', format: 'raw' } },
  ),
];
