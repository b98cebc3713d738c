import { seededRandom } from '@downfold/compliance';
import { describe, expect, it } from 'vitest';
import { RangeOrder } from '../src/range-order.ts';
import { Ticket } from '../src/turn.ts';

/** Whether two requests must keep their order. */
function conflict(a: Ticket, b: Ticket): boolean {
  return (a.use === 'change' || b.use === 'change') && a.start < b.end && b.start < a.end;
}

describe('RangeOrder', () => {
  it.each([1, 2, 3, 4])('begins exactly who has no earlier conflict left, seed %i', (seed) => {
    const random = seededRandom(seed);
    const below = (limit: number): number => Math.floor(random() * limit);
    const order = new RangeOrder();
    const live: Ticket[] = [];
    for (let turn = 0; turn < 4000; turn++) {
      const begun = live.filter((ticket) => ticket.begun);
      if (begun.length > 0 && (live.length > 30 || random() < 0.5)) {
        const over = begun[below(begun.length)] as Ticket;
        live.splice(live.indexOf(over), 1);
        order.remove(over);
      } else {
        const start = below(60);
        const end = start + 1 + below(random() < 0.1 ? 60 : 8);
        const ticket = new Ticket(random() < 0.5 ? 'read' : 'change', start, end);
        order.add(ticket);
        live.push(ticket);
      }
      const expected = live.map((one, at) => !live.slice(0, at).some((it) => conflict(it, one)));
      expect(live.map(({ begun }) => begun)).toEqual(expected);
    }
    for (let next = live.find((one) => one.begun); next; next = live.find((one) => one.begun)) {
      live.splice(live.indexOf(next), 1);
      order.remove(next);
    }
    expect([live.length, order.size]).toEqual([0, 0]);
  });

  it('keeps a thousand changes of one sector a queue: each has one request behind it', () => {
    const order = new RangeOrder();
    const all = Array.from({ length: 1000 }, () => new Ticket('change', 0, 512));
    for (const ticket of all) order.add(ticket);
    expect(all.map(({ behind }) => behind.length)).toEqual([...Array(999).fill(1), 0]);
    expect(order.size).toBe(1);
  });

  it('stays cheap with thousands apart in flight', () => {
    const order = new RangeOrder();
    const random = seededRandom(7);
    const live: Ticket[] = [];
    const begun = process.threadCpuUsage();
    for (let turn = 0; turn < 40_000; turn++) {
      const start = Math.floor(random() * 2 ** 28) * 4096;
      const ticket = new Ticket(turn % 2 === 0 ? 'read' : 'change', start, start + 4096);
      order.add(ticket);
      live.push(ticket);
      if (live.length > 4000) order.remove(live.shift() as Ticket);
    }
    // of this thread, whatever else the machine does: some 2 µs each
    const { user, system } = process.threadCpuUsage(begun);
    expect((user + system) / 40_000).toBeLessThan(15);
    expect(live.every((ticket) => ticket.begun)).toBe(true);
  });
});
