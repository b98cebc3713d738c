import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** What qemu-img does that Downfold does as well; `create` alone says nothing about a test. */
const VERBS =
  'commit|rebase|check|map|info|snapshot|compare|convert|amend|measure|resize|bitmap|dd';

/** Calls of qemu-img in tests that are shell scripts, and of the functions of theirs that call it. */
const IN_SHELL = /QEMU_IMG\b|run_qemu_img\b|_check_test_img\b|_img_info\b|_make_test_img\b/;
/** The same in tests in Python. */
const IN_PYTHON = new RegExp(
  `qemu_img\\w*\\(\\s*['"](${VERBS})|img_info_log|qemu_img_(info|map|check|measure)|compare_images`,
);
/** Tests that start the emulator: Debian's has no accelerator `qtest`, which they need, and what they ask of qemu-img is to set up. */
const EMULATOR = /_launch_qemu\b|\$QEMU\b|\bVM\(|QMPTestCase/;
const GENERIC_OR_OURS = /supported_fmts?\b.*\b(generic|qcow2|raw)\b/;

/**
 * Names of the tests below `directory` (`tests/qemu-iotests`) that call qemu-img for what Downfold does, on formats that it knows, as `check`
 * takes them. By what stands in them, so that the list is right for the tests of any QEMU. Those that start the emulator, and those that their
 * authors disabled, are not there.
 */
export async function pickTests(directory: string): Promise<readonly string[]> {
  const names = [
    ...(await readdir(directory)).filter((name) => /^\d{3}$/.test(name)),
    ...(await readdir(join(directory, 'tests')))
      .filter((name) => !name.includes('.'))
      .map((name) => join('tests', name)),
  ];
  const picked: string[] = [];
  for (const name of names.sort()) {
    const text = await readFile(join(directory, name), 'utf8');
    if (concerns(text)) picked.push(name.replace(/^tests\//, ''));
  }
  return picked;
}

/** Whether the text of a test is of one that has to do with what Downfold does. */
export function concerns(text: string): boolean {
  if (/^# group:.*\bdisabled\b/m.test(text)) return false;
  if (!GENERIC_OR_OURS.test(text) || EMULATOR.test(text)) return false;
  return (text.startsWith('#!/usr/bin/env python3') ? IN_PYTHON : IN_SHELL).test(text);
}
