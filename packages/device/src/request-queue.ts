import { RangeOrder } from './range-order.ts';
import { Ticket, Turn, type Use } from './turn.ts';

/** How a drained section went. */
export interface Drained<T> {
  /** What the work resolved with. */
  readonly value: T;
  /** Milliseconds until the requests before it were over. */
  readonly drainMs: number;
  /** Milliseconds that the work took. */
  readonly workMs: number;
  /** Requests that came meanwhile and were held. */
  readonly held: number;
}

/**
 * One line for requests and sections, in the order they come. Requests at the front run, in the order that their ranges ask for; a section begins
 * when those before it are over and runs alone. So neither many sections starve requests, nor many requests a section.
 */
export class RequestQueue {
  readonly #now: () => number;
  readonly #ranges = new RangeOrder();
  /** What waits behind a section, with the section itself until it begins. */
  #line: Turn[] = [];
  #running = 0;
  #isAlone = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Whether a request that comes now is held. */
  get isHolding(): boolean {
    return this.#isAlone || this.#line.length > 0;
  }

  /** Puts a request in the line. It is to be left in every case, once it has begun. */
  enter(use: Use, start: number, end: number): Ticket {
    const ticket = new Ticket(use, start, end);
    if (this.isHolding) this.#line.push(ticket);
    else this.#admit(ticket);
    return ticket;
  }

  /** A request that had begun is over. */
  leave(ticket: Ticket): void {
    if (ticket.use !== 'none') this.#ranges.remove(ticket);
    this.#running--;
    this.#moveOn();
  }

  /** Runs `work` when all that came before is over; what comes later waits until it has settled. */
  async alone<T>(work: () => Promise<T>): Promise<Drained<T>> {
    const section = new Turn();
    const asked = this.#now();
    this.#line.push(section);
    this.#moveOn();
    if (!section.begun) await section.wait();
    const begun = this.#now();
    let held = 0;
    try {
      const value = await work();
      held = this.#heldNow();
      return { value, drainMs: begun - asked, workMs: this.#now() - begun, held };
    } finally {
      this.#isAlone = false;
      this.#moveOn();
    }
  }

  #admit(ticket: Ticket): void {
    this.#running++;
    if (ticket.use === 'none') ticket.begin();
    else this.#ranges.add(ticket);
  }

  /** Requests in the line before the next section. */
  #heldNow(): number {
    const next = this.#line.findIndex((turn) => !(turn instanceof Ticket));
    return next === -1 ? this.#line.length : next;
  }

  /** Admits requests up to the next section, and that one when nothing runs. All at once, so that nobody gets in between. */
  #moveOn(): void {
    if (this.#isAlone || this.#line.length === 0) return;
    let next = 0;
    for (; next < this.#line.length; next++) {
      const turn = this.#line[next] as Turn;
      if (turn instanceof Ticket) this.#admit(turn);
      else {
        if (this.#running > 0) break;
        this.#isAlone = true;
        turn.begin();
        next++;
        break;
      }
    }
    this.#line.splice(0, next);
  }
}
