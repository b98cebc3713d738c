import type { Region, System } from './system.ts';

/** Read from the socket at once. */
const INPUT_BYTES = 256 << 10;
/** Longest read that a thread serves by itself. */
export const LONGEST_READ: number = 1 << 20;
/** What is packed is sent once it is as long. */
export const PACKED_BYTES: number = 64 << 10;
/** The first data begins here: neither at the start of a page nor right behind it, where reads would be slow. */
export const FIRST_DATA = 64;
/** What is packed, and a read behind it. */
const OUTPUT_BYTES = 2 * FIRST_DATA + PACKED_BYTES + LONGEST_READ;
/** Two of `struct pollfd`. */
const POLL_BYTES = 16;

/**
 * Memory that the connections of a thread use one after another. Were it made for each of them, it would be freed when the thread collects garbage,
 * which one that waits for its next connection does not.
 */
export interface Rooms {
  readonly input: Region;
  readonly output: Region;
  readonly poll: Region;
}

export function makeRooms(system: System): Rooms {
  return {
    input: system.region(INPUT_BYTES),
    output: system.region(OUTPUT_BYTES),
    poll: system.region(POLL_BYTES),
  };
}

/** What a thread has for each of its connections. */
export interface ServingThread {
  readonly system: System;
  /** Descriptor of the event counter that wakes it. */
  readonly bell: number;
  readonly rooms: Rooms;
}
