import { outputOf } from './tool.ts';

/** QEMU's arguments for the secret `s`, which is in a file. */
export function secretObject(file: string): readonly string[] {
  return ['--object', `secret,id=s,file=${file}`];
}

/** What QEMU says when it makes a LUKS header and finds, now and then, that it cannot tell how fast the machine is. */
const CANNOT_TELL = 'Unable to get accurate CPU usage';
const MOST_TRIES = 20;

/** Runs a `qemu-img` that makes a LUKS header. @throws with its output when it fails */
export function makeEncrypted(...args: readonly string[]): void {
  untilTimed(() => outputOf('qemu-img', args));
}

/** Does what has QEMU make a LUKS header, or measure one, again when QEMU cannot tell how many iterations that takes. `run` throws what QEMU says. */
export function untilTimed<T>(run: () => T): T {
  for (let tries = 1; ; tries++) {
    try {
      return run();
    } catch (cause) {
      if (tries > MOST_TRIES || !String(cause).includes(CANNOT_TELL)) throw cause;
    }
  }
}

/** Arguments by which `qemu-img compare` holds an encrypted image, as `--image-opts` names it, against a file of plain bytes; `key`: of the secret `s`. */
export function comparedInClear(key: string, image: string, plain: string): readonly string[] {
  return [
    ...['compare', ...secretObject(key), '--image-opts'],
    ...[image, `driver=raw,file.filename=${plain}`],
  ];
}
