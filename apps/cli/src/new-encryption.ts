import { type GivenSecret, secretFor } from '@downfold/host';
import type { CipherSpec, HashName, ImageEncryption } from '@downfold/luks';
import { ENCRYPT_SETTINGS, type Settings } from './create-settings.ts';
import { UsageError } from './failure.ts';
import { absolute } from './paths.ts';
import { type NamedSecret, secretCalled } from './secrets.ts';

/** What a command was given of secrets. */
interface Given {
  readonly secret?: readonly GivenSecret[] | undefined;
  readonly object?: readonly NamedSecret[] | undefined;
}

/** What names of settings begin with. */
type Prefix = '' | 'encrypt.';

/** How a new image is encrypted; null: it is not. @throws UsageError for settings without `encrypt.format`, or without a secret */
export function encryptionFor(
  file: string,
  format: string,
  settings: Settings,
  { secret, object }: Given,
): ImageEncryption | null {
  const said = ENCRYPT_SETTINGS.filter((name) => settings[name] !== undefined);
  if (format !== 'luks' && said.length === 0) return null;
  if (format !== 'luks' && settings['encrypt.format'] === undefined)
    throw new UsageError(`${said[0]} needs encrypt.format=luks`);
  const prefix: Prefix = format === 'luks' ? '' : 'encrypt.';
  const id = settings[`${prefix}key-secret`];
  const found = id === undefined ? secretFor(absolute(file), secret) : secretCalled(id, object);
  if (found === null)
    throw new UsageError(
      `${file}: encryption needs a secret: --secret FILE, or ${prefix}key-secret=ID and --object`,
    );
  const iterTime = settings[`${prefix}iter-time`];
  return {
    secret: found,
    cipher: cipherFor(settings, prefix),
    hash: (settings[`${prefix}hash-alg`] ?? 'sha256') as HashName,
    ...(iterTime === undefined ? {} : { iterTime: milliseconds(iterTime, prefix) }),
  };
}

/** The cipher that settings name. */
export function cipherFor(settings: Settings, prefix: Prefix): CipherSpec {
  const mode = settings[`${prefix}cipher-mode`] === 'cbc' ? 'cbc' : 'xts';
  const bits = Number((settings[`${prefix}cipher-alg`] ?? 'aes-256').slice('aes-'.length));
  const iv = (settings[`${prefix}ivgen-alg`] ?? 'plain64') as CipherSpec['iv'];
  const ivHash = (settings[`${prefix}ivgen-hash-alg`] ?? 'sha256') as HashName;
  return {
    mode,
    keyBytes: (bits / 8) * (mode === 'xts' ? 2 : 1),
    iv,
    ivHash: iv === 'essiv' ? ivHash : null,
  };
}

function milliseconds(text: string, prefix: Prefix): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value > 0 && value <= 2 ** 32) return value;
  throw new UsageError(`Invalid ${prefix}iter-time '${text}': milliseconds, at least 1`);
}
