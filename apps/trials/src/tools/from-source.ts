/** Flags of a Node process that runs our TypeScript, and takes that of our packages. */
export const FROM_SOURCE: readonly string[] = [
  '--conditions=@downfold/source',
  '--disable-warning=ExperimentalWarning',
];
