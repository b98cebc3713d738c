import { type Feature, struct, type Type } from './types.ts';

/** What a command learns beside its arguments. */
export interface CommandContext {
  /** Aborted when the server closes. A client that goes away ends no command. */
  readonly signal: AbortSignal;
}

/** A command: what it takes and gives, and how it is run. Made by `command`. */
export interface Command<A = unknown, R = unknown> {
  readonly about: string;
  /** A struct or a union. */
  readonly arguments: Type<A>;
  /** `null`: an empty object. */
  readonly returns: Type<R> | null;
  readonly features: readonly Feature[];
  /**
   * @throws QmpError goes to the client as it is; a `DownfoldError` as a `GenericError` with its message; anything else is a
   * fault of the command
   */
  run(args: A, context: CommandContext): R | Promise<R>;
}

/** Commands by name. */
export type Commands = Readonly<Record<string, Command>>;

/** An event: what it carries. Made by `event`. */
export interface Event<D = unknown> {
  readonly about: string;
  /** `null`: it carries nothing. */
  readonly data: Type<D> | null;
  readonly features: readonly Feature[];
}

/** Events by name. */
export type Events = Readonly<Record<string, Event>>;

/** Commands and events: all that is told of a server. */
export interface Interface {
  readonly commands: Commands;
  readonly events: Events;
}

/** Arguments of a command that takes none. */
export const NO_MEMBERS: Type<object> = struct({});

/** Declares a command; the types of `run` follow from `arguments` and `returns`. */
export function command<A = object, R = void>(spec: {
  readonly about: string;
  readonly arguments?: Type<A>;
  readonly returns?: Type<R>;
  readonly features?: readonly Feature[];
  run(args: A, context: CommandContext): R | Promise<R>;
}): Command<A, R> {
  return {
    about: spec.about,
    arguments: spec.arguments ?? (NO_MEMBERS as Type<A>),
    returns: spec.returns ?? null,
    features: spec.features ?? [],
    run: (args, context) => spec.run(args, context),
  };
}

/** Declares an event. */
export function event<D = undefined>(spec: {
  readonly about: string;
  readonly data?: Type<D>;
  readonly features?: readonly Feature[];
}): Event<D> {
  return { about: spec.about, data: spec.data ?? null, features: spec.features ?? [] };
}
