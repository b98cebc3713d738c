import type { Storage } from '@downfold/storage';
import type { Image, ImageFormat } from '../../src/index.ts';
import { decorated } from '../image-decorator.ts';
import { toy } from '../toy-format.ts';

/** A deliberately broken format, and the case that must notice. */
export interface Mutant {
  /** What is wrong with it. */
  readonly name: string;
  /** Id of a case of the kit. */
  readonly killedBy: string;
  readonly format: ImageFormat;
}

/** The toy format with its images replaced. */
export function mutant(
  name: string,
  killedBy: string,
  wrap: (image: Image, storage: Storage) => Image,
): Mutant {
  return { name, killedBy, format: decorated(toy, wrap) };
}

/** The toy format with members of the format replaced. */
export function formatMutant(
  name: string,
  killedBy: string,
  members: Partial<ImageFormat>,
): Mutant {
  return { name, killedBy, format: { ...toy, ...members } };
}
