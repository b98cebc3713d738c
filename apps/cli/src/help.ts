/** What `downfold --help` says before the list of commands. */
export const EXAMPLES = `Downfold folds the layers of a qcow2 backing chain down into one another.

Examples:
  downfold demo                                  see it work on a chain of its own
  downfold graph .                               who depends on whom in a directory
  downfold commit --dry-run -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 what a commit would do; nothing is written
  downfold commit -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 fold mid (and what is between) into base
  downfold resume disk.qcow2                     go on after a crash, kill or Ctrl-C
  downfold check disk.qcow2; echo $?             verify the metadata of one image
`;

/** What it says after. */
export const EPILOG = `
Exit codes:
  0    done; 'compare': the disks are the same; 'check': nothing found
  1    not done, the line on stderr says why; 'compare': the disks differ
  2    'check': the image is corrupt; 'compare': could not compare
  3    'check': only leaked clusters
  63   'check': the format has nothing to check
  130, 143   stopped by SIGINT, SIGTERM; 'downfold resume FILE' goes on

Formats are said, never guessed: -f is qcow2 unless you say '-f raw'.
Results go to stdout, everything else to stderr. With '--output json' a failure also
prints {"error": {"class", "desc", "details"}} on stdout.
NO_COLOR=1: no colours. DOWNFOLD_DEBUG=1: stacks of errors.
`;

/** Examples of single commands, shown before their options. */
export const COMMAND_EXAMPLES: Readonly<Record<string, string>> = {
  info: `Examples:
  downfold info disk.qcow2
  downfold info --backing-chain --output json disk.qcow2
  downfold info -f raw disk.img
`,
  map: `Examples:
  downfold map disk.qcow2
  downfold map --output json disk.qcow2 | jq length
`,
  check: `Examples:
  downfold check disk.qcow2
  downfold check --output json disk.qcow2
`,
  compare: `Examples:
  downfold compare before.qcow2 after.qcow2
  downfold compare -F raw disk.qcow2 disk.img
`,
  create: `Examples:
  downfold create disk.qcow2 10G
  downfold create -b base.qcow2 -F qcow2 overlay.qcow2
  downfold create -o cluster_size=2M,extended_l2=on disk.qcow2 1T
`,
  commit: `Examples:
  downfold commit disk.qcow2                     disk into its backing file; disk is emptied
  downfold commit -d disk.qcow2                  the same, disk keeps its data
  downfold commit -b base.qcow2 --top mid.qcow2 disk.qcow2
                                                 mid and all between into base; disk goes on
                                                 on top of base, and so does mid
  downfold commit --dry-run --output json -b base.qcow2 --top mid.qcow2 disk.qcow2
`,
  resume: `Examples:
  downfold resume disk.qcow2
`,
  graph: `Examples:
  downfold graph .
  downfold graph --output svg /var/lib/images > images.svg
  downfold graph --output dot . | dot -Tpng > images.png
`,
  demo: `Examples:
  downfold demo
  downfold demo --dir /tmp/demo                  keep the images, to play with
`,
};
