import type { ImageSnapshot } from '@downfold/image';
import { qemuBytes } from './bytes.ts';

const BILLION = 10n ** 9n;

/** An internal snapshot under qemu-img's keys. */
export function snapshotInfo(snapshot: ImageSnapshot): Record<string, unknown> {
  const clock = BigInt(snapshot.clock);
  return {
    id: snapshot.id,
    name: snapshot.name,
    'vm-state-size': snapshot.stateBytes,
    'date-sec': snapshot.seconds,
    'date-nsec': snapshot.nanoseconds,
    'vm-clock-sec': Number(clock / BILLION),
    'vm-clock-nsec': Number(clock % BILLION),
    ...(snapshot.instructions === null ? {} : { icount: Number(snapshot.instructions) }),
  };
}

/** Internal snapshots in qemu-img's columns. */
export function snapshotTable(snapshots: readonly ImageSnapshot[]): readonly string[] {
  const row = (
    id: string,
    name: string,
    ...[size = '', date = '', clock = '', count = '']: string[]
  ) =>
    `${id.padEnd(9)} ${name.padEnd(16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${count.padStart(11)}`;
  return [
    row('ID', 'TAG', 'VM SIZE', 'DATE', 'VM CLOCK', 'ICOUNT'),
    ...snapshots.map((one) =>
      row(
        one.id,
        one.name,
        qemuBytes(one.stateBytes),
        localTime(one.seconds),
        clockOf(BigInt(one.clock)),
        one.instructions ?? '',
      ),
    ),
  ];
}

/** `2026-01-31 12:00:00`, in the time zone of the user. */
function localTime(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}

/** `01:02:03.004`. */
function clockOf(nanoseconds: bigint): string {
  const seconds = nanoseconds / BILLION;
  const parts = [seconds / 3600n, (seconds / 60n) % 60n, seconds % 60n];
  const milliseconds = (nanoseconds % BILLION) / 10n ** 6n;
  const two = (value: bigint): string => String(value).padStart(2, '0');
  return `${parts.map(two).join(':')}.${String(milliseconds).padStart(3, '0')}`;
}

/** Facts of a format, as qemu-img prints them: members and elements of a value one step further in. */
export function factLines(value: object, indent: string): readonly string[] {
  return Object.entries(value).flatMap(([key, one]: [string, unknown]) => {
    const name = Array.isArray(value) ? `[${key}]` : key.replaceAll('-', ' ');
    if (typeof one !== 'object' || one === null) return [`${indent}${name}: ${one}`];
    return [`${indent}${name}:`, ...factLines(one, `${indent}    `)];
  });
}
