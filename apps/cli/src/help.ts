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
  downfold ctl --help                            jobs beneath a running guest, by a server's socket
  downfold check disk.qcow2; echo $?             verify the metadata of one image
`;

/** What it says after. */
export const EPILOG = `
Exit codes:
  0    done; 'compare': the disks are the same; 'check': nothing found
  1    not done, the line on stderr says why; 'compare': the disks differ
  2    'check': the image is corrupt; 'compare': could not compare; 'ctl': the job was cancelled
  3    'check': only leaked clusters
  63   'check': the format has nothing to check
  124  'ctl': the time of --timeout is up
  130, 143   stopped by SIGINT, SIGTERM (129: SIGHUP); 'downfold resume FILE' goes on,
             and jobs of a server that 'ctl' has left do so by themselves

Formats are said, never guessed: -f is qcow2 unless you say '-f raw'.
Results go to stdout, everything else to stderr. With '--output json' a failure also
prints {"error": {"class", "desc", "details"}} on stdout.
NO_COLOR=1: no colours. DOWNFOLD_DEBUG=1: stacks of errors.
`;
