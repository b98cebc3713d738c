import { guestOffset } from '@downfold/units';
import { describe, expect, it } from 'vitest';
import { Latency } from '../src/latency.ts';
import { bytes, deviceOn, toyLayer } from './support.ts';
import { CELL } from './toy-image.ts';

function timed(): {
  latency: Latency;
  request(milliseconds: number, meanwhile?: () => void): void;
  wait(ms: number): void;
} {
  let now = 0;
  const latency = new Latency(() => now);
  return {
    latency,
    wait: (milliseconds) => {
      now += milliseconds;
    },
    request: (milliseconds, meanwhile) => {
      const begun = latency.begin();
      now += milliseconds;
      meanwhile?.();
      latency.end(begun);
    },
  };
}

describe('latency of the guest', () => {
  it('is not known before there was a request, nor once nobody asks for anything', () => {
    const { latency, request, wait } = timed();
    expect(latency.strain()).toBe(null);
    request(1);
    expect(latency.strain()).toBe(1);
    wait(501);
    expect(latency.strain()).toBe(null);
  });

  it('without a job is what it is: no strain, however slow', () => {
    const { latency, request } = timed();
    for (let count = 0; count < 500; count++) request(count);
    expect(latency.strain()).toBeCloseTo(1);
  });

  it('beside a job is told from that without one', () => {
    const { latency, request } = timed();
    for (let count = 0; count < 200; count++) request(1);
    const end = latency.beside();
    for (let count = 0; count < 1000; count++) request(5);
    expect(latency.strain()).toBeCloseTo(5, 1);
    end();
    end();
    for (let count = 0; count < 1000; count++) request(1);
    expect(latency.strain()).toBeCloseTo(1, 1);
  });

  it('a few slow requests count as they are felt', () => {
    const { latency, request } = timed();
    for (let count = 0; count < 200; count++) request(1);
    const end = latency.beside();
    for (let count = 0; count < 1000; count++) request(count % 10 === 0 ? 20 : 1);
    // the mean of these would be below 3
    expect(latency.strain()).toBeGreaterThan(5);
    end();
  });

  it('a request during which work began or rested is no calm one', () => {
    const { latency, request } = timed();
    request(1);
    let end = (): void => undefined;
    request(9, () => {
      end = latency.beside();
    });
    request(9, () => end());
    expect(latency.strain()).toBeCloseTo(Math.sqrt((1 + 81 + 81) / 3));
  });

  it('is that of reads and changes through the disk, not of what jobs hold', async () => {
    let now = 0;
    const layer = await toyLayer({
      size: 4 * CELL,
      pause: async () => {
        now += 2;
      },
    });
    await using device = deviceOn([layer], { now: () => now });
    await device.holding(
      { offset: guestOffset(0), length: CELL as never },
      'changes',
      async () => undefined,
    );
    await device.flush();
    expect(device.latency.strain()).toBe(null);
    await device.read(guestOffset(0), bytes(CELL, 0));
    await device.write(guestOffset(0), bytes(CELL, 1));
    expect(device.latency.strain()).toBe(1);
  });
});
