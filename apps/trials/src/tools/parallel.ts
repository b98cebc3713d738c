/** Runs `body` on every item, `lanes` at a time, in order of the items. The first rejection ends it. */
export async function inLanes<T>(
  lanes: number,
  items: readonly T[],
  body: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items[Symbol.iterator]();
  const lane = async (): Promise<void> => {
    for (const item of queue) await body(item);
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}
