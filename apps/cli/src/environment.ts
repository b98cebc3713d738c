import { type ChainEnvironment, type ChainPolicy, defaultPolicy } from '@downfold/chain';
import type { Image, ImageFormat } from '@downfold/image';
import { qcow2 } from '@downfold/qcow2';
import { raw } from '@downfold/raw';
import type { StorageBackend } from '@downfold/storage';
import { fileBackend } from '@downfold/storage-file';
import { UsageError } from './failure.ts';
import { absolute, directoryOf } from './paths.ts';

/** The backend of the command line: files of this machine. */
export const backend: StorageBackend = fileBackend();

/** The formats of the command line. */
export const formats: readonly ImageFormat[] = [qcow2, raw];

/** The format of `-f NAME`. @throws UsageError for a name that is not there. */
export function formatOf(name: string): ImageFormat {
  const format = formats.find((one) => one.name === name);
  if (format !== undefined) return format;
  throw new UsageError(
    `Unknown image format '${name}'; known are ${formats.map((one) => one.name).join(', ')}`,
  );
}

/** What a command lets a chain open. */
export interface Access {
  /** Directories, as the user named them, that backing files may lie in besides the image's own. */
  readonly allow?: readonly string[] | undefined;
  /** Also images that are marked invalid or superseded. */
  readonly forceInvalid?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The surroundings in which the chain of `file` is opened. */
export function environmentFor(file: string, access: Access): ChainEnvironment {
  return { backend, formats, policy: policyFor([file], access), signal: access.signal };
}

/** The safe default, opened up by what the user said. */
export function policyFor(files: readonly string[], access: Access): ChainPolicy {
  const allow = access.allow ?? [];
  return {
    ...defaultPolicy,
    roots:
      allow.length === 0
        ? null
        : [...files.map(directoryOf), ...allow.map((directory) => absolute(directory))],
    allowMarked: access.forceInvalid ?? false,
  };
}

/** Opens one image read-only and nothing below it; marked ones too. */
export async function openAlone(file: string, formatName: string): Promise<Image> {
  const format = formatOf(formatName);
  const storage = await backend.open(absolute(file), 'read');
  try {
    return await format.open(storage, { mode: 'read' });
  } catch (cause) {
    await storage[Symbol.asyncDispose]();
    throw cause;
  }
}
