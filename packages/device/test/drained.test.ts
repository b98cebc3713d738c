import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import type { Device } from '../src/index.ts';
import {
  bytes,
  cellsOf,
  deviceOn,
  expectCode,
  Gate,
  jitter,
  range,
  settled,
  shown,
  toyLayer,
  watched,
} from './support.ts';
import { CELL } from './toy-image.ts';

/** A disk of 16 cells whose writes to cell 0 stop at the gate. */
async function gated(now?: () => number): Promise<[Device, Gate]> {
  const gate = new Gate((what, offset) => what === 'write' && offset === 0);
  const layer = await toyLayer({ size: 16 * CELL, pause: gate.pause });
  return [deviceOn([layer], now === undefined ? {} : { now }), gate];
}

describe('drained', () => {
  it('waits for running requests, holds later ones whatever they are, and runs alone', async () => {
    const [device, gate] = await gated();
    const first = watched(device.write(guestOffset(0), bytes(CELL, 1)));
    const done: string[] = [];
    const section = device.drained(async () => {
      await settled();
      done.push(`section, first ${first.state}`);
      await settled();
      done.push('section over');
    });
    const later = [
      device.read(guestOffset(9 * CELL), bytes(1, 0)).then(() => done.push('read')),
      device.write(guestOffset(5 * CELL), bytes(CELL, 2)).then(() => done.push('write')),
      device.flush().then(() => done.push('flush')),
      device
        .blockStatus(range(0, CELL))
        .next()
        .then(() => done.push('status')),
      device.holding(range(0, CELL), 'changes', async () => done.push('holding')),
    ];
    await settled();
    expect(done).toEqual([]);
    gate.open();
    await section;
    expect(done.slice(0, 2)).toEqual(['section, first done', 'section over']);
    await Promise.all(later);
    expect(done.length).toBe(7);
  });

  it('holds a request that comes while the work runs and nobody else waits', async () => {
    const [device] = await gated();
    const [begun, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const section = device.drained(() => {
      begun.resolve();
      return end.promise;
    });
    await begun.promise;
    const write = watched(device.write(guestOffset(CELL), bytes(1, 1)));
    await settled();
    expect(write.state).toBe('waits');
    end.resolve();
    expect((await section).held).toBe(1);
    await settled();
    expect(write.state).toBe('done');
  });

  it('lets held requests go on in order, before any that is called when the section ends', async () => {
    const [device] = await gated();
    const end = Promise.withResolvers<void>();
    const section = device.drained(() => end.promise);
    const held = [1, 2, 3].map((value) => device.write(guestOffset(CELL), bytes(CELL, value)));
    await settled();
    end.resolve();
    // as soon as the section is over for anybody, something new is called
    const late = section.then(() => device.write(guestOffset(CELL), bytes(CELL, 4)));
    let turns = 0;
    const busy = (async () => {
      while (turns++ < 20) {
        await Promise.resolve();
        if (turns === 3) void device.write(guestOffset(2 * CELL), bytes(CELL, turns));
      }
    })();
    await Promise.all([...held, late, busy]);
    expect((await cellsOf(device))[1]).toBe(4);
  });

  it('reports how long it took and how many were held', async () => {
    let time = 100;
    const [device, gate] = await gated(() => time);
    const write = device.write(guestOffset(0), bytes(CELL, 1));
    const section = device.drained(async () => {
      time = 160;
      return 'value';
    });
    const held = [shown(device, 0, 1), shown(device, 0, 1), device.flush()];
    await settled();
    time = 130;
    gate.open();
    expect(await section).toEqual({ value: 'value', drainMs: 30, workMs: 30, held: 3 });
    await Promise.all([write, ...held]);
    expect((await device.drained(async () => {})).held).toBe(0);
  });

  it('releases when the work fails, at once or later', async () => {
    const [device] = await gated();
    const fails = device.drained(async () => {
      await settled();
      throw new Error('no');
    });
    const held = shown(device, 0, 1);
    await expect(fails).rejects.toThrow('no');
    await held;
    const throws = device.drained(() => {
      throw new Error('at once');
    });
    await expect(throws).rejects.toThrow('at once');
    await shown(device, 0, 1);
  });

  it('sections queue with the requests between them: none overtakes, none starves', async () => {
    const [device, gate] = await gated();
    const order: string[] = [];
    const note = (what: string) => () => void order.push(what);
    const all = [
      device.write(guestOffset(0), bytes(1, 1)).then(note('a')),
      device.drained(() => settled().then(note('S1'))),
      device.write(guestOffset(CELL), bytes(1, 1)).then(note('b')),
      device.drained(() => settled().then(note('S2'))),
      device.drained(() => settled().then(note('S3'))),
      device.write(guestOffset(CELL), bytes(1, 2)).then(note('c')),
    ];
    await settled();
    expect(order).toEqual([]);
    gate.open();
    await Promise.all(all);
    expect(order).toEqual(['a', 'S1', 'b', 'S2', 'S3', 'c']);
  });

  it('ends under requests without end, and sections without end let requests through', async () => {
    const device = deviceOn([await toyLayer({ size: 4 * CELL, pause: jitter(8) })]);
    let isOver = false;
    let requests = 0;
    let sections = 0;
    const guest = async (at: number): Promise<void> => {
      for (; !isOver; requests++) await device.write(guestOffset(at * 512), bytes(600, requests));
    };
    const job = async (): Promise<void> => {
      for (; !isOver; sections++) await device.drained(() => settled());
    };
    const crowd = [guest(0), guest(1), guest(2), guest(3), job(), job()];
    while (requests < 200 || sections < 10) await settled();
    isOver = true;
    await Promise.all(crowd);
  });

  it('a section asked for from within one is a part of it; a request from within is refused, not waited for', async () => {
    const [device] = await gated();
    const { value } = await device.drained(async (outer) => {
      const inner = await device.drained(async (section) => section === outer);
      await expectCode(shown(device, 0, 1), 'DEVICE_DRAINED');
      await expectCode(device.write(guestOffset(0), bytes(1, 1)), 'DEVICE_DRAINED');
      await expectCode(device.flush(), 'DEVICE_DRAINED');
      await expectCode(device.close(), 'DEVICE_DRAINED');
      return inner.value;
    });
    expect(value).toBe(true);
    await shown(device, 0, 1);
  });

  it('a section that is over can do nothing; what was begun in it and goes on is like any other', async () => {
    const [device] = await gated();
    const { value } = await device.drained(async (section) => {
      const later = (async () => {
        await settled();
        await shown(device, 0, 1);
        return (await device.drained(async (own) => own !== section)).value;
      })();
      return { section, later };
    });
    expect(await value.later).toBe(true);
    expect(() => value.section.layers).toThrow('over');
    await expectCode(value.section.flush(), 'DEVICE_DRAINED');
    await expectCode(value.section.replace(device.layers), 'DEVICE_DRAINED');
  });
});

describe('holding', () => {
  it('keeps changes out of its range, not reads, and neither from elsewhere', async () => {
    const [device] = await gated();
    const end = Promise.withResolvers<void>();
    const held = device.holding(range(CELL, CELL), 'changes', () => end.promise);
    const [change, read, beside] = [
      watched(device.write(guestOffset(2 * CELL - 1), bytes(1, 1))),
      watched(shown(device, CELL - 1, 1)),
      watched(device.write(guestOffset(2 * CELL), bytes(1, 1))),
    ];
    const same = watched(device.holding(range(CELL, 10), 'changes', async () => {}));
    await settled();
    expect([change.state, read.state, beside.state, same.state]).toEqual([
      'waits',
      'done',
      'done',
      'done',
    ]);
    end.resolve();
    await held;
    await settled();
    expect(change.state).toBe('done');
  });

  it('keeps reads out too when asked, and gives the layers and the value of the work', async () => {
    const [device] = await gated();
    const end = Promise.withResolvers<void>();
    const held = device.holding(range(CELL, CELL), 'requests', async (layers) => {
      await end.promise;
      return layers.length;
    });
    const [read, empty] = [
      watched(shown(device, CELL, 1)),
      watched(device.holding(range(CELL, 0), 'requests', async () => {})),
    ];
    await settled();
    expect([read.state, empty.state]).toEqual(['waits', 'done']);
    end.resolve();
    expect(await held).toBe(1);
    await expect(
      device.holding(range(0, CELL), 'requests', () => Promise.reject(new Error('no'))),
    ).rejects.toThrow('no');
    await shown(device, 0, CELL);
  });
});

describe('close', () => {
  it('finishes what was called, in order, refuses what comes later, flushes, and leaves the layers open', async () => {
    const gate = new Gate((what, offset) => what === 'write' && offset === 0);
    const layer = await toyLayer({ size: 4 * CELL, pause: gate.pause });
    const device = deviceOn([layer]);
    const called = [
      device.write(guestOffset(0), bytes(CELL, 1)),
      device.drained(async (section) => section.flush()),
      device.write(guestOffset(CELL), bytes(CELL, 2)),
    ].map(watched);
    const closing = device.close();
    const closed = watched(closing);
    await expectCode(shown(device, 0, 1), 'DEVICE_CLOSED');
    await expectCode(device.write(guestOffset(0), bytes(1, 1)), 'DEVICE_CLOSED');
    await expectCode(device.flush(), 'DEVICE_CLOSED');
    await expectCode(
      device.drained(async () => {}),
      'DEVICE_CLOSED',
    );
    await expectCode(device.blockStatus(range(0, 1)).next(), 'DEVICE_CLOSED');
    await settled();
    expect(closed.state).toBe('waits');
    gate.open();
    await closing;
    expect(called.map(({ state }) => state)).toEqual(['done', 'done', 'done']);
    expect([layer.image.flushes, layer.image.isClosed]).toEqual([2, false]);
    await device.close();
    expect(layer.image.flushes).toBe(2);
  });

  it('in a hurry, what has not begun is refused and what runs may end early', async () => {
    const gate = new Gate((what) => what === 'write');
    const device = deviceOn([await toyLayer({ size: 4 * CELL, pause: gate.pause })]);
    const abort = new AbortController();
    const running = watched(device.write(guestOffset(0), bytes(CELL, 1)));
    const waiting = watched(device.write(guestOffset(0), bytes(CELL, 2)));
    const closing = device.close({ signal: abort.signal });
    await settled();
    abort.abort();
    gate.open();
    await closing;
    expect([running.state, waiting.state]).toEqual(['DEVICE_CLOSED', 'DEVICE_CLOSED']);
  });

  it('is what `await using` does', async () => {
    const layer = await toyLayer({ size: CELL });
    {
      await using device = deviceOn([layer]);
      await device.write(guestOffset(0), bytes(1, 1));
    }
    expect(layer.image.flushes).toBe(1);
  });
});
