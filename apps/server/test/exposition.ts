import { spawnSync } from 'node:child_process';

/** Debian's Python, whose packages are Debian's. */
const PYTHON = '/usr/bin/python3';

/** Reads the exposition as Prometheus' own Python library does, which throws at what it cannot read. */
const READ = `
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
json.dump([
  {'name': f.name, 'type': f.type, 'help': f.documentation,
   'samples': [{'name': s.name, 'labels': s.labels, 'value': str(s.value)} for s in f.samples]}
  for f in families(sys.stdin.read())], sys.stdout)
`;

/** A metric, and what is known of it. */
export interface Family {
  readonly name: string;
  readonly type: string;
  readonly help: string;
  readonly samples: readonly {
    readonly name: string;
    readonly labels: Readonly<Record<string, string>>;
    readonly value: string;
  }[];
}

function hasReader(): boolean {
  const { status } = spawnSync(PYTHON, ['-c', 'import prometheus_client'], { stdio: 'ignore' });
  if (status === 0) return true;
  if (process.env['DOWNFOLD_REQUIRE_QEMU'] === '1')
    throw new Error('DOWNFOLD_REQUIRE_QEMU=1, but there is no python3-prometheus-client');
  console.warn('NO python3-prometheus-client: tests that need it are skipped');
  return false;
}

/** Whether somebody else's reader of metrics is here. */
export const haveReader: boolean = hasReader();

/** What a reader that is not ours finds in an exposition. Throws with what it says when it cannot be read. */
export function familiesOf(text: string): readonly Family[] {
  const { status, stdout, stderr } = spawnSync(PYTHON, ['-c', READ], {
    input: text,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(`it cannot be read: ${stderr}\n${text}`);
  return JSON.parse(stdout);
}

/** The value of the one sample with that name and these labels. */
export function sampleOf(
  families: readonly Family[],
  name: string,
  labels: Readonly<Record<string, string>> = {},
): number {
  const found = families
    .flatMap(({ samples }) => samples)
    .filter(
      (sample) =>
        sample.name === name &&
        Object.entries(labels).every(([label, value]) => sample.labels[label] === value),
    );
  const [sample] = found;
  if (sample === undefined || found.length > 1)
    throw new Error(`${found.length} samples are ${name} ${JSON.stringify(labels)}`);
  return Number(sample.value);
}
