/** Counts snapshots, and names them. */
export class Snapshots {
  count = 0;
  next(): string {
    this.count += 1;
    return `snap${this.count}`;
  }

  /** File of the one that was asked for last. */
  get last(): string {
    return `snap${this.count}.qcow2`;
  }
}
