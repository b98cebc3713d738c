import type { LuksHeader } from './header.ts';
import { STRIPES } from './structures.ts';

/**
 * What `qemu-img info` shows of a header, with its keys. Holds nothing secret. `within`: what the format that has it in its images adds, where QEMU
 * shows that.
 */
export function describeHeader(
  header: LuksHeader,
  within: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const { cipher, hash, uuid, slots, payloadAt, digestIterations } = header;
  const { mode, keyBytes, iv, ivHash } = cipher;
  return {
    'ivgen-alg': iv,
    ...(ivHash === null ? {} : { 'ivgen-hash-alg': ivHash }),
    'hash-alg': hash,
    'cipher-alg': `aes-${8 * (mode === 'xts' ? keyBytes / 2 : keyBytes)}`,
    uuid,
    ...within,
    'cipher-mode': mode,
    slots: slots.map(({ active, iterations, materialAt }) => ({
      active,
      ...(active ? { iters: iterations } : {}),
      'key-offset': materialAt,
      ...(active ? { stripes: STRIPES } : {}),
    })),
    'payload-offset': payloadAt,
    'master-key-iters': digestIterations,
  };
}
