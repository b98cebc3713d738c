/** Where a command line of Downfold does on purpose something else than the same one of `qemu-img`. */
export interface Difference {
  readonly id: string;
  readonly verbs: string;
  /** What `qemu-img` does. */
  readonly theirs: string;
  readonly ours: string;
  readonly why: string;
}

/** All of them; `docs/qemu-img.md` is made from this. */
export const DIFFERENCES: readonly Difference[] = [
  {
    id: 'formats',
    verbs: 'all',
    theirs: 'guesses a format that is not said',
    ours: '`-f` and `-F` are `qcow2` unless said; a backing file without a format is refused',
    why: 'a guest can write a header that makes its raw disk look like another format',
  },
  {
    id: 'roots',
    verbs: 'all that read a chain',
    theirs: 'opens every backing file that an image names, by any protocol',
    ours: 'files in the directory of the image, and in those that `--allow` names',
    why: 'an image from elsewhere must not read files of the host',
  },
  {
    id: 'data-file',
    verbs: 'all but info, snapshot -l',
    theirs: 'opens the external data file that an image names, wherever it is',
    ours: 'refuses, unless `--allow-data-file` is said; then where backing files may lie, and not one that two images have',
    why: 'an image from elsewhere must not read, or change, files of the host',
  },
  {
    id: 'data-file-name',
    verbs: 'all with data files',
    theirs: 'takes a relative name of a data file from where it runs',
    ours: 'takes it from the directory of the image, as those of backing files',
    why: 'an image means the same file wherever a program is started',
  },
  {
    id: 'data-file-new',
    verbs: 'create, convert',
    theirs: '`-o data_file` empties a file that is there, and is taken by `convert`',
    ours: 'refuses a file that is there; `convert` takes an image that was created, with `-n`',
    why: 'it is the disk of somebody; two files cannot get their names at once',
  },
  {
    id: 'data-file-check',
    verbs: 'check',
    theirs:
      'does not see entries that do not lie in the data file where the guest has them, and cannot read them',
    ours: 'counts them as errors (2)',
    why: 'what cannot be read is wrong',
  },
  {
    id: 'options',
    verbs: 'all',
    theirs:
      '`--object` of every type, `--image-opts` of every driver, `--target-image-opts`, `-T` for traces, and long options cut short (`--out`)',
    ours: 'of `--object` secrets in files; of `--image-opts` format, file, `encrypt.key-secret` and `key-secret`; the rest is refused. `--secret` for whole chains and targets',
    why: 'images are named by files, secrets are in no argument; a cut option means something else as soon as a second one begins alike',
  },
  {
    id: 'more-formats',
    verbs: 'all',
    theirs: 'vmdk, vdi, vpc, vhdx, qed, parallels and others; `amend` changes key slots of LUKS',
    ours: 'qcow2, raw and LUKS 1; no key slots',
    why: 'one format is known well rather than many a little; `qemu-img convert` and `cryptsetup` have the rest',
  },
  {
    id: 'remote-locks',
    verbs: 'all that write',
    theirs: 'takes its locks on network and FUSE file systems too, and trusts them',
    ours: 'asks for `--lock ofd`, or `DOWNFOLD_LOCK=ofd` in the environment of a script',
    why: 'on some of them locks exclude nobody',
  },
  {
    id: 'protocols',
    verbs: 'all',
    theirs: '`nbd:host:port`, `json:{...}`, `rbd:`, `ssh:` and others',
    ours: '`nbd://`, `nbd+unix://`, `http://`, `https://`; what looks like another protocol is refused, a file of that name is `./nbd:...`',
    why: 'one spelling for each; a copy that went into a file of that name would be missed elsewhere',
  },
  {
    id: 'pool',
    verbs: 'commit',
    theirs: 'looks at no other image',
    ours: 'refuses while a file beside the chain that may read through it cannot be read; `--ignore-unreadable` goes on',
    why: 'it may be an overlay that would be ruined',
  },
  {
    id: 'link',
    verbs: 'all that read a chain',
    theirs:
      'takes relative backing names from the directory of the name that was given, a link or not',
    ours: 'takes them from the directory of the image, and refuses where another file lies beside the link',
    why: 'an image means the same file by whatever name it is opened',
  },
  {
    id: 'progress',
    verbs: 'all with `-p`',
    theirs: 'percentages on stdout',
    ours: 'percentages on stderr; on a terminal a bar',
    why: 'stdout has the result and nothing else',
  },
  {
    id: 'prose',
    verbs: 'all',
    theirs: 'errors and findings in its own words, `qemu-img: ...`',
    ours: 'one line, `downfold: ...`, that says what to do; with `--output json` an object on stdout too',
    why: 'exit codes and results are for scripts, errors for people',
  },
  {
    id: 'cache',
    verbs: 'all with `-t` or `-T`',
    theirs: 'chooses how the host caches',
    ours: 'takes every mode; reads and writes through the page cache, and durable at the end in each',
    why: 'a result that may be lost by a power cut, as after `-t unsafe`, is no result',
  },
  {
    id: 'hole',
    verbs: 'map, measure',
    theirs:
      'looks for holes in the data of qcow2 images only when their file takes much less space than it has clusters, and then tells single blocks of a cluster',
    ours: 'looks for them in all files that are not encrypted, and tells whole clusters; of raw files what `qemu-img` tells',
    why: "what is there to be skipped is skipped; a cluster that was written in part is in no one's way",
  },
  {
    id: 'preallocated',
    verbs: 'map',
    theirs: '`offset` also for subclusters that are reserved and unallocated',
    ours: '`offset` for data and preallocated zeros',
    why: 'there is nothing to read at that offset',
  },
  {
    id: 'past-end',
    verbs: 'check',
    theirs: 'does not look at refcounts past the end of the file',
    ours: 'clusters that are counted there are leaks (3)',
    why: 'they are counted and nobody has them',
  },
  {
    id: 'repair-snapshots',
    verbs: 'check -r',
    theirs: 'deletes all internal snapshots of an image that has a bitmap, even of a sound one',
    ours: 'keeps them',
    why: 'they are data',
  },
  {
    id: 'repair-beside-zero',
    verbs: 'check -r leaks',
    theirs: 'gives up (1) beside a refcount that is zero',
    ours: 'lowers what is too high, and exits with 2 for what is left',
    why: 'one does not hinder the other',
  },
  {
    id: 'repair-table',
    verbs: 'check -r all',
    theirs: 'gives up (1) on a refcount table entry that is not on a cluster',
    ours: 'builds the refcounts anew',
    why: 'it can be repaired',
  },
  {
    id: 'repair-keeps',
    verbs: 'check -r',
    theirs: 'frees leaks also beside entries that are broken beyond repair',
    ours: 'keeps them (2)',
    why: 'they may be what the entries meant',
  },
  {
    id: 'create-format',
    verbs: 'create',
    theirs: '`raw` unless `-f` says otherwise',
    ours: '`qcow2` unless `-f` says otherwise',
    why: '`-f` means the same in all verbs',
  },
  {
    id: 'create-over',
    verbs: 'create',
    theirs: 'empties a file that is there',
    ours: 'refuses',
    why: "it is somebody's disk",
  },
  {
    id: 'strict-hole',
    verbs: 'compare -s',
    theirs:
      'may see a difference between two unallocated ranges when only one of them reaches the end of the disk',
    ours: 'sees none',
    why: 'there is none',
  },
  {
    id: 'compare-usage',
    verbs: 'compare',
    theirs: 'a wrong command line exits with 1, as if the disks differed',
    ours: 'exits with 2',
    why: 'a script must not take a misspelt option for a difference',
  },
  {
    id: 'replace',
    verbs: 'convert, dd',
    theirs:
      'write into the target from the start; a copy that was killed is left half made, and looks whole',
    ours: 'the target has its name when it is whole and durable; a file that was there is replaced then, and not before',
    why: 'whoever finds the name may use the disk',
  },
  {
    id: 'replace-source',
    verbs: 'convert, dd',
    theirs: 'may be given one of the images that are read as the target (only locks refuse it)',
    ours: 'refused, under whatever name, backing files too',
    why: 'the source would be lost',
  },
  {
    id: 'deeper',
    verbs: 'convert -B',
    theirs: 'copies what the leaf alone holds, whichever layer `-B` names',
    ours: 'copies all that lies above the layer that `-B` names',
    why: 'the copy shows what the source shows',
  },
  {
    id: 'dd-count',
    verbs: 'dd',
    theirs: '`count` blocks are counted from the start of the input, before `skip`',
    ours: '`count` blocks are copied, after `skip`',
    why: 'the manual of qemu-img and dd(1) say so',
  },
  {
    id: 'shrink',
    verbs: 'resize --shrink',
    theirs: 'gives back what lies past the new end, then changes the size',
    ours: 'changes the size by one sector, then gives back',
    why: 'a crash leaves the old disk or the new one',
  },
  {
    id: 'grow-zero',
    verbs: 'resize',
    theirs: 'after a cut inside a cluster, growth shows what was there before',
    ours: 'what is added is zero',
    why: 'what was cut off is gone',
  },
  {
    id: 'luks-grow',
    verbs: 'resize -f luks',
    theirs: 'what is added shows noise',
    ours: 'what is added is zero; the time that takes is that of writing it',
    why: 'a larger disk is not to show what nobody wrote',
  },
  {
    id: 'luks-commit-grow',
    verbs: 'commit, of a larger disk into a LUKS image',
    theirs: 'grows it, and leaves noise there',
    ours: 'refuses; `resize` first',
    why: 'a crash between growing and writing would leave noise to be committed',
  },
  {
    id: 'luks-check',
    verbs: 'check -f luks',
    theirs: 'asks for the secret, and says then that there are no checks (63)',
    ours: 'says so (63) without it',
    why: 'nothing is read',
  },
  {
    id: 'commit-relink',
    verbs: 'commit -b',
    theirs: 'leaves the reference of the leaf on the images between, which are no longer valid',
    ours: 'relinks the leaf to the base, and marks the images between',
    why: 'what reads through them would read wrong',
  },
  {
    id: 'commit-name',
    verbs: 'commit -b',
    theirs: 'finds the base by the name that its overlay gives it',
    ours: 'by that name, or by any path to the file',
    why: 'the file is meant, not its name',
  },
  {
    id: 'commit-siblings',
    verbs: 'commit',
    theirs: 'overwrites what other overlays of the base read',
    ours: 'refuses, unless `--keep-siblings` or `--invalidate-siblings` is said',
    why: 'their disks would be ruined, silently',
  },
  {
    id: 'more-lines',
    verbs: 'commit, rebase',
    theirs: '`Image committed.`; of a rebase nothing',
    ours: 'the same first line, `Image rebased.`, and what was done in lines that begin with two blanks; `-q` says nothing',
    why: 'whoever looks sees what became of each image',
  },
  {
    id: 'rebase-format',
    verbs: 'rebase, rebase -u',
    theirs: 'warns, or guesses, when the new backing file is named without `-F`',
    ours: 'refuses',
    why: 'an image that names a format cannot be fooled later',
  },
];
