/** How one golden image is made. */
export interface Recipe {
  /** File name; other recipes may name it as a backing file. */
  readonly name: string;
  readonly format: 'qcow2' | 'raw';
  /** What it is there for. */
  readonly about: string;
  /** Shell command lines, run in one directory for all recipes, in order. */
  readonly commands: readonly string[];
  /** Code that opening it for reading must reject with. */
  readonly refused?: 'IMAGE_UNSUPPORTED';
  /** Code that opening it for writing must reject with, where reading is allowed. */
  readonly notForWriting?: 'IMAGE_NEEDS_REPAIR';
}

/** `qemu-img create` with options. */
function create(name: string, size: string, ...options: readonly string[]): string {
  const list = options.length > 0 ? `-o ${options.join(',')} ` : '';
  return `qemu-img create -q -f qcow2 ${list}${name} ${size}`;
}

/** One process of `qemu-io` on an image. */
function io(name: string, ...commands: readonly string[]): string {
  return `qemu-io -f qcow2 ${commands.map((command) => `-c '${command}'`).join(' ')} ${name} > qemu-io.log`;
}

/** Overwrites bytes of a file at an offset; `bytes` in `printf`'s octal notation. */
function patch(name: string, offset: number | string, bytes: string): string {
  return `printf '${bytes}' | dd of=${name} bs=1 seek=${offset} conv=notrunc status=none`;
}

/** The little of everything that any disk of at least eight clusters can hold: whole, partial, adjacent, far, zeroed, discarded. */
function mixed(name: string, cluster: number): string {
  return io(
    name,
    `write -P 0x11 0 ${cluster}`,
    `write -P 0x22 ${cluster} ${cluster}`,
    `write -P 0x33 ${Math.floor(cluster * 3.5)} ${cluster}`,
    `write -P 0x44 ${cluster * 7 - 512} 512`,
    `write -P 0x55 ${cluster * 5} ${cluster}`,
    `write -z -u ${cluster * 5} ${cluster}`,
    `write -P 0x66 ${cluster * 6} ${cluster / 2}`,
    `discard ${cluster * 1} ${cluster}`,
  );
}

const KIB = 1024;

function plain(version: 2 | 3, label: string, cluster: number): Recipe {
  const name = `v${version}-${label}.qcow2`;
  const compat = version === 2 ? 'compat=0.10' : 'compat=1.1';
  return {
    name,
    format: 'qcow2',
    about: `version ${version}, clusters of ${cluster} bytes`,
    commands: [
      create(name, String(cluster * 20), compat, `cluster_size=${cluster}`),
      mixed(name, cluster),
    ],
  };
}

/** A raw disk of one byte repeated, for others to lie on. */
function rawOf(name: string, size: string, byte: string): Recipe {
  return {
    name,
    format: 'raw',
    about: 'a backing file',
    commands: [
      `qemu-img create -q -f raw '${name}' ${size}`,
      `qemu-io -f raw -c 'write -P ${byte} 0 ${size}' '${name}' > qemu-io.log`,
    ],
  };
}

const LONG_NAME = `größe 磁盘 ${'long-'.repeat(30)}name.raw`;

function refcounts(bits: number): Recipe {
  const name = `refcount-${bits}.qcow2`;
  return {
    name,
    format: 'qcow2',
    about: `refcounts of ${bits} bits`,
    commands: [
      create(name, '64k', 'cluster_size=512', `refcount_bits=${bits}`),
      io(
        name,
        'write -P 0x31 0 11k',
        'write -P 0x32 40k 3k',
        'discard 1k 2k',
        'write -P 0x33 1536 512',
      ),
    ],
  };
}

function compressed(label: string, cluster: string, ...options: readonly string[]): Recipe {
  const name = `${label}.qcow2`;
  const all = [`cluster_size=${cluster}`, ...options].join(',');
  const noise = cluster === '64k' ? 65_536 : 16_384;
  return {
    name,
    format: 'qcow2',
    about: `compressed clusters, packed byte by byte, so that they straddle host clusters (${all})`,
    commands: [
      'seq 1 60000 | head -c 262144 > text.raw',
      // what does not compress stays a plain cluster
      `node -e 'let s=1;process.stdout.write(Uint8Array.from({length:${noise}},()=>(s=s*48271%2147483647)>>>8))' >> text.raw`,
      `truncate -s ${262_144 + noise + 20_480} text.raw`,
      `qemu-img convert -c -f raw -O qcow2 -o ${all} text.raw ${name}`,
      io(name, 'write -P 0x41 66000 700', 'discard 0 64k'),
    ],
  };
}

function snapshots(version: 2 | 3): Recipe {
  const name = `snapshots-v${version}.qcow2`;
  const compat = version === 2 ? 'compat=0.10' : 'compat=1.1';
  return {
    name,
    format: 'qcow2',
    about: `version ${version}, two internal snapshots whose data differs from the active layer's, a third one deleted`,
    commands: [
      create(name, '64k', compat, 'cluster_size=1k'),
      io(name, 'write -P 0x51 0 16k'),
      `qemu-img snapshot -c first ${name}`,
      io(name, 'write -P 0x52 4k 5k', 'discard 12k 2k'),
      `qemu-img snapshot -c gone ${name}`,
      io(name, 'write -P 0x53 6k 1k'),
      `qemu-img snapshot -c 'second one' ${name}`,
      io(name, 'write -P 0x54 0 512', 'write -z 15k 1k'),
      `qemu-img snapshot -d gone ${name}`,
    ],
  };
}

const chain: readonly Recipe[] = [
  rawOf('chain-base.raw', '96k', '0x61'),
  {
    name: 'chain-mid.qcow2',
    format: 'qcow2',
    about: 'intermediate, shorter than base and top: its end reads as zeros, not as base',
    commands: [
      create(
        'chain-mid.qcow2',
        '33k',
        'cluster_size=2k',
        'backing_file=chain-base.raw',
        'backing_fmt=raw',
      ),
      io('chain-mid.qcow2', 'write -P 0x62 4k 6k', 'write -z 12k 4k', 'write -P 0x63 33280 512'),
    ],
  },
  {
    name: 'chain-top.qcow2',
    format: 'qcow2',
    about: 'top of the chain, with other clusters than the layer below',
    commands: [
      create(
        'chain-top.qcow2',
        '80k',
        'cluster_size=4k',
        'backing_file=chain-mid.qcow2',
        'backing_fmt=qcow2',
      ),
      io(
        'chain-top.qcow2',
        'write -P 0x64 0 100',
        'write -P 0x65 30k 100',
        'write -z 8k 4k',
        'write -P 0x66 70k 2k',
      ),
    ],
  },
];

/** Every golden image, in the order in which they are made. */
export const recipes: readonly Recipe[] = [
  rawOf('ones.raw', '64k', '0x01'),
  rawOf('subclusters.raw', '160k', '0x70'),
  rawOf('committed.raw', '64k', '0x02'),
  rawOf(LONG_NAME, '64k', '0x03'),
  plain(2, '512', 512),
  plain(2, '4k', 4 * KIB),
  plain(2, '64k', 64 * KIB),
  plain(3, '512', 512),
  plain(3, '4k', 4 * KIB),
  plain(3, '64k', 64 * KIB),
  {
    name: 'v3-2m.qcow2',
    format: 'qcow2',
    about: 'the largest clusters, 2 MiB',
    commands: [
      create('v3-2m.qcow2', '7m', 'cluster_size=2m'),
      io(
        'v3-2m.qcow2',
        'write -P 0x12 2097100 100',
        'write -z -u 4m 2m',
        'write -P 0x13 7339520 512',
      ),
    ],
  },
  ...[1, 2, 4, 8, 16, 32, 64].map(refcounts),
  {
    name: 'extended-l2-16k.qcow2',
    format: 'qcow2',
    about: 'subclusters of 512 bytes, each with a status of its own, over a backing file',
    commands: [
      create(
        'extended-l2-16k.qcow2',
        '160k',
        'cluster_size=16k',
        'extended_l2=on',
        'backing_file=subclusters.raw',
        'backing_fmt=raw',
      ),
      io(
        'extended-l2-16k.qcow2',
        'write -P 0x71 0 512',
        'write -P 0x72 1024 1536',
        'write -z 4k 1k',
        'write -z -u 16k 16k',
        'write -P 0x73 20k 512',
        'write -P 0x74 48k 16k',
        'discard 50k 2k',
        'write -z -u 56k 512',
        'write -P 0x75 95k 2k',
        'write -P 0x76 112k 16k',
        'write -z 112k 16k',
      ),
    ],
  },
  {
    name: 'extended-l2-64k.qcow2',
    format: 'qcow2',
    about: 'subclusters of 2 KiB without a backing file',
    commands: [
      create('extended-l2-64k.qcow2', '300k', 'cluster_size=64k', 'extended_l2=on'),
      io(
        'extended-l2-64k.qcow2',
        'write -P 0x77 3k 1k',
        'write -P 0x78 126k 5k',
        'write -z 130k 4k',
        'write -P 0x79 299k 1k',
      ),
    ],
  },
  compressed('zlib-512', '512'),
  compressed('zlib-4k', '4k'),
  compressed('zlib-64k', '64k'),
  compressed('zstd-4k', '4k', 'compression_type=zstd'),
  compressed('zstd-64k', '64k', 'compression_type=zstd'),
  compressed('zlib-extended-l2', '16k', 'extended_l2=on'),
  compressed('zlib-v2', '4k', 'compat=0.10'),
  {
    name: 'zero-plain.qcow2',
    format: 'qcow2',
    about: 'zero clusters without host space, over a backing file',
    commands: [
      create(
        'zero-plain.qcow2',
        '64k',
        'cluster_size=4k',
        'backing_file=ones.raw',
        'backing_fmt=raw',
      ),
      io('zero-plain.qcow2', 'write -P 0x81 0 8k', 'write -z -u 4k 12k', 'write -z -u 30k 10k'),
    ],
  },
  {
    name: 'zero-allocated.qcow2',
    format: 'qcow2',
    about: 'zero clusters that keep host space, beside plain ones and preallocated data',
    commands: [
      create('zero-allocated.qcow2', '66k', 'cluster_size=4k', 'preallocation=metadata'),
      io(
        'zero-allocated.qcow2',
        'write -P 0x82 0 4k',
        'write -z 0 8k',
        'write -z -u 16k 8k',
        'write -P 0x83 34k 1k',
        'write -z 64k 2k',
      ),
    ],
  },
  {
    name: 'preallocated-full.qcow2',
    format: 'qcow2',
    about: 'all clusters written with zeros when it was created',
    commands: [create('preallocated-full.qcow2', '48k', 'cluster_size=1k', 'preallocation=full')],
  },
  snapshots(2),
  snapshots(3),
  {
    name: 'snapshot-resized.qcow2',
    format: 'qcow2',
    about: 'a snapshot of a smaller disk; the L1 table moved since',
    commands: [
      create('snapshot-resized.qcow2', '32k', 'cluster_size=512'),
      io('snapshot-resized.qcow2', 'write -P 0x55 0 8k'),
      'qemu-img snapshot -c small snapshot-resized.qcow2',
      'qemu-img resize -q -f qcow2 snapshot-resized.qcow2 3m',
      io('snapshot-resized.qcow2', 'write -P 0x56 4k 1k', 'write -P 0x57 2999k 1k'),
    ],
  },
  ...chain,
  {
    name: 'dirty.qcow2',
    format: 'qcow2',
    about: 'lazy refcounts, and the writer was killed: the dirty bit is set, refcounts are stale',
    commands: [
      create('dirty.qcow2', '64k', 'cluster_size=4k', 'lazy_refcounts=on'),
      `(${io('dirty.qcow2', 'write -P 0x91 0 10k', 'flush', 'abort')}) 2> qemu-io.err || true`,
    ],
  },
  {
    name: 'corrupt.qcow2',
    format: 'qcow2',
    about:
      'QEMU met an L2 entry that pointed to the L1 table, and set the corrupt bit; the entry was mended since',
    commands: [
      create('corrupt.qcow2', '64k', 'cluster_size=4k'),
      io('corrupt.qcow2', 'write -P 0x92 0 8k'),
      // the second entry of the L2 table (cluster 4) points to cluster 3, and back to cluster 6
      patch('corrupt.qcow2', 16_384 + 8, '\\200\\0\\0\\0\\0\\0\\060\\0'),
      `(${io('corrupt.qcow2', 'write -P 0x93 4k 4k')}) 2> qemu-io.err || true`,
      patch('corrupt.qcow2', 16_384 + 8, '\\200\\0\\0\\0\\0\\0\\140\\0'),
    ],
    notForWriting: 'IMAGE_NEEDS_REPAIR',
  },
  {
    name: 'leaks.qcow2',
    format: 'qcow2',
    about: 'three clusters are counted that nothing refers to',
    commands: [
      create('leaks.qcow2', '64k', 'cluster_size=4k'),
      io('leaks.qcow2', 'write -P 0x94 0 24k'),
      // entries 1 to 3 of the L2 table (cluster 4)
      patch('leaks.qcow2', 16_384 + 8, '\\0\\0\\0\\0\\0\\0\\0\\0'.repeat(3)),
    ],
  },
  {
    name: 'miscounted.qcow2',
    format: 'qcow2',
    about: 'a data cluster with refcount 0: worse than a leak',
    commands: [
      create('miscounted.qcow2', '64k', 'cluster_size=4k'),
      io('miscounted.qcow2', 'write -P 0x95 0 8k'),
      // refcount of cluster 6 in the refcount block (cluster 2)
      patch('miscounted.qcow2', 8192 + 12, '\\0\\0'),
    ],
  },
  {
    name: 'bitmaps.qcow2',
    format: 'qcow2',
    about: 'two persistent bitmaps, one of them disabled, with the autoclear bit',
    commands: [
      create('bitmaps.qcow2', '256k', 'cluster_size=1k'),
      'qemu-img bitmap --add -g 4k bitmaps.qcow2 nightly',
      io('bitmaps.qcow2', 'write -P 0xa1 10k 20k'),
      'qemu-img bitmap --add -g 64k bitmaps.qcow2 weekly',
      'qemu-img bitmap --disable bitmaps.qcow2 weekly',
      io('bitmaps.qcow2', 'write -P 0xa2 100k 1k'),
    ],
  },
  {
    name: 'unknown-extension.qcow2',
    format: 'qcow2',
    about:
      'a header extension nobody knows, kept by QEMU when it rewrote the header with a backing file',
    commands: [
      create('unknown-extension.qcow2', '64k', 'cluster_size=4k'),
      patch('unknown-extension.qcow2', 112, '\\021\\042\\063\\104\\0\\0\\0\\013hello there'),
      'qemu-img rebase -u -f qcow2 -b ones.raw -F raw unknown-extension.qcow2',
      io('unknown-extension.qcow2', 'write -P 0xa3 4k 1k'),
    ],
  },
  {
    name: 'unknown-bits.qcow2',
    format: 'qcow2',
    about: 'compatible and autoclear bits nobody knows: to be ignored by readers',
    commands: [
      create('unknown-bits.qcow2', '64k', 'cluster_size=4k'),
      io('unknown-bits.qcow2', 'write -P 0xa4 4k 1k'),
      patch('unknown-bits.qcow2', 80, '\\200'),
      patch('unknown-bits.qcow2', 90, '\\001'),
    ],
  },
  {
    name: 'names.qcow2',
    format: 'qcow2',
    about: 'a backing file with a long name that is not ASCII, and no backing format',
    commands: [
      create('names.qcow2', '64k', 'cluster_size=512'),
      `qemu-img rebase -u -f qcow2 -b '${LONG_NAME}' -F raw names.qcow2`,
      io('names.qcow2', 'write -P 0xa5 4k 512'),
      // the extension of the backing format becomes one that nobody knows
      patch('names.qcow2', 112, '\\042\\042\\042\\042'),
    ],
  },
  {
    name: 'short-last-cluster.qcow2',
    format: 'qcow2',
    about: 'the end of the disk cuts the last cluster, which holds data',
    commands: [
      create('short-last-cluster.qcow2', '132608', 'cluster_size=64k'),
      io('short-last-cluster.qcow2', 'write -P 0xb1 0 512', 'write -P 0xb2 131072 1536'),
    ],
  },
  {
    name: 'odd-size.qcow2',
    format: 'qcow2',
    about: 'a virtual size in the header that is no whole number of sectors: QEMU rounds it down',
    commands: [
      create('odd-size.qcow2', '16k', 'cluster_size=4k'),
      io('odd-size.qcow2', 'write -P 0xb3 0 16k'),
      // 16,360 bytes
      patch('odd-size.qcow2', 30, '\\077\\350'),
    ],
  },
  {
    name: 'many-tables.qcow2',
    format: 'qcow2',
    about: 'data on both sides of the ends of L2 tables, and tables between that do not exist',
    commands: [
      create('many-tables.qcow2', '640k', 'cluster_size=512'),
      io(
        'many-tables.qcow2',
        'write -P 0xb4 32000 1500',
        'write -P 0xb5 65024 512',
        'write -P 0xb6 327k 2k',
        'write -P 0xb7 639k 1k',
      ),
    ],
  },
  {
    name: 'grown-and-shrunk.qcow2',
    format: 'qcow2',
    about: 'resized three times by QEMU; the L1 table keeps entries beyond the disk',
    commands: [
      create('grown-and-shrunk.qcow2', '64k', 'cluster_size=512'),
      io('grown-and-shrunk.qcow2', 'write -P 0xb8 60k 4k'),
      'qemu-img resize -q -f qcow2 grown-and-shrunk.qcow2 2m',
      io('grown-and-shrunk.qcow2', 'write -P 0xb9 1500k 3k'),
      'qemu-img resize -q -f qcow2 --shrink grown-and-shrunk.qcow2 62k',
    ],
  },
  {
    name: 'emptied.qcow2',
    format: 'qcow2',
    about: 'committed by `qemu-img commit` and emptied',
    commands: [
      create(
        'emptied.qcow2',
        '64k',
        'cluster_size=4k',
        'backing_file=committed.raw',
        'backing_fmt=raw',
      ),
      io('emptied.qcow2', 'write -P 0xba 4k 9k'),
      'qemu-img commit -q -f qcow2 emptied.qcow2',
    ],
  },
  {
    name: 'data-file.qcow2',
    format: 'qcow2',
    about: 'external data file: not read by Downfold',
    commands: [
      create('data-file.qcow2', '64k', 'cluster_size=4k', 'data_file=data-file.raw'),
      io('data-file.qcow2', 'write -P 0xc1 4k 1k'),
    ],
    refused: 'IMAGE_UNSUPPORTED',
  },
  {
    name: 'encrypted.qcow2',
    format: 'qcow2',
    about: 'AES encryption: not read by Downfold',
    commands: [
      `qemu-img create -q -f qcow2 --object secret,id=s,data=secret -o cluster_size=4k,encrypt.format=aes,encrypt.key-secret=s encrypted.qcow2 64k`,
    ],
    refused: 'IMAGE_UNSUPPORTED',
  },
  {
    name: 'odd-length.raw',
    format: 'raw',
    about: 'a raw file that ends inside a sector: QEMU completes it with zeros',
    commands: [`seq 1 1000 | head -c 1300 > odd-length.raw`],
  },
];
