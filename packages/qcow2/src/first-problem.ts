/** Keeps what it hears first: a hostile image has millions of problems. */
export class FirstProblem {
  /** Null: there was none. */
  message: string | null = null;

  readonly hear = ({ message }: { readonly message: string }): void => {
    this.message ??= message;
  };
}
