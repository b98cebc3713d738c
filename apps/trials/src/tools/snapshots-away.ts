import { must } from './process.ts';

/** How a job is refused that would change what an image's internal snapshots show. */
const IN_THE_WAY = /(\/[^:]+): its internal snapshots \('s1'\)/;

/** Does work; where an image's internal snapshot `s1` is in its way, as it must be, that is deleted, and the work begun again. */
export async function snapshotsAway<T>(work: () => Promise<T>): Promise<T> {
  for (;;) {
    const done = await work().then(
      (value) => ({ value }),
      (cause: Error) => ({ image: IN_THE_WAY.exec(cause.message)?.[1], cause }),
    );
    if ('value' in done) return done.value;
    if (done.image === undefined) throw done.cause;
    await must('qemu-img', ['snapshot', '-q', '-d', 's1', done.image]);
  }
}
