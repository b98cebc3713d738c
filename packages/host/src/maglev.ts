import { setFlagsFromString } from 'node:v8';

/**
 * Has V8 do without Maglev, its middle compiler, from here on and in every thread. With it, Node 24 sometimes never ends: the main
 * thread waits for a compilation that waits for it (nodejs/node#54918); and on busy machines it sometimes crashes (nodejs/node#64841).
 * For a program's start, once its modules are loaded: code that was kept compiled under other flags is compiled again.
 */
export function withoutMaglev(): void {
  setFlagsFromString('--no-maglev');
}
