/** What is written to a stream goes to `gone` when its reader is not there any more; any other error is one. */
const unlessGone = (gone: () => void) => (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  gone();
};

let [out, err]: [NodeJS.WriteStream | null, NodeJS.WriteStream | null] = [null, null];

/** Where results go. Taken first when there is one to print: a pipe brings Node's sockets, a terminal even more. */
export function stdout(): NodeJS.WriteStream {
  // a reader of results that went away, such as `head`, has seen enough: not a failure worth a word
  out ??= process.stdout.on(
    'error',
    unlessGone(() => process.exit(process.exitCode ?? 0)),
  );
  return out;
}

/** Where all that is not a result goes; as `stdout`. */
export function stderr(): NodeJS.WriteStream {
  // nobody looks at the progress any more: that must not end a job
  err ??= process.stderr.on(
    'error',
    unlessGone(() => {}),
  );
  return err;
}
