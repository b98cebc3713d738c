import { describe, expect, it } from 'vitest';
import { optionOf, parseKeyval } from '../src/options/keyval.ts';
import { objectOptions } from '../src/options/objects.ts';
import { settingsOf } from '../src/options/settings.ts';
import { exportOptions } from '../src/qmp/schema/exports.ts';
import { blockdevOptions } from '../src/qmp/schema/nodes.ts';

describe('keyval', () => {
  it('has dots for objects, and two commas for one', () => {
    expect(parseKeyval('driver=qcow2,file.driver=file,file.filename=a,,b=c', null)).toEqual({
      driver: 'qcow2',
      file: { driver: 'file', filename: 'a,b=c' },
    });
  });

  it('takes a first part alone for the implied name, and the last of two values', () => {
    expect(parseKeyval('nbd,id=a,id=b', 'type')).toEqual({ type: 'nbd', id: 'b' });
    expect(() => parseKeyval('id=a,nbd', 'type')).toThrow("'nbd' is no NAME=VALUE");
    expect(() => parseKeyval('nbd', null)).toThrow("'nbd' is no NAME=VALUE");
  });

  it.each(['a=1,a.b=2', 'a.b=2,a=1', 'a..b=1', '.a=1'])('refuses %s', (text) => {
    expect(() => parseKeyval(text, null)).toThrow(/is a value and an object|cannot be set/);
  });

  it('cannot reach a prototype', () => {
    const parsed = parseKeyval('__proto__.polluted=yes', null);
    expect(Object.hasOwn(parsed, '__proto__')).toBe(true);
    expect(({} as { polluted?: string }).polluted).toBeUndefined();
  });
});

describe('an option', () => {
  it('is the same in both forms', () => {
    const json =
      '{"driver":"qcow2","node-name":"a","read-only":true,"file":{"driver":"file","filename":"x"}}';
    const keyval = 'qcow2,node-name=a,read-only=on,file.driver=file,file.filename=x';
    expect(optionOf(blockdevOptions, keyval, 'driver')).toEqual(
      optionOf(blockdevOptions, json, 'driver'),
    );
  });

  it('is refused with what QMP says', () => {
    expect(() => optionOf(exportOptions, 'nbd,id=a,node-name=b,bogus=1', 'type')).toThrow(
      "Parameter 'bogus' is unexpected",
    );
    expect(() => optionOf(exportOptions, 'nbd,id=a,node-name=b,writable=maybe', 'type')).toThrow(
      "Invalid parameter type for 'writable', expected: boolean",
    );
    expect(() => optionOf(blockdevOptions, 'raw,node-name=b', 'driver')).toThrow(
      "Parameter 'file' is missing",
    );
    expect(() => optionOf(blockdevOptions, '{"driver":', 'driver')).toThrow(/JSON/);
  });
});

describe('the command line', () => {
  it('takes addresses in both forms', () => {
    expect(settingsOf('d', { nbd: 'unix:a/b' }).nbdServer).toEqual({
      addr: { type: 'unix', path: 'a/b' },
    });
    expect(settingsOf('d', { nbd: '[::1]:10809' }).nbdServer).toEqual({
      addr: { type: 'inet', host: '::1', port: '10809' },
    });
    expect(
      settingsOf('d', { nbdServer: 'addr.type=inet,addr.host=a,addr.port=1,max-connections=5' })
        .nbdServer,
    ).toEqual({
      addr: { type: 'inet', host: 'a', port: '1' },
      'max-connections': 5,
    });
    expect(() => settingsOf('d', { nbd: 'somewhere' })).toThrow('neither unix:PATH nor HOST:PORT');
  });

  it('joins monitors to chardevs, each once', () => {
    const chardev = ['socket,id=c0,path=/run/x,server=on,wait=off'];
    expect(settingsOf(undefined, { chardev, monitor: ['c0'] }).monitors).toEqual(['/run/x']);
    expect(() =>
      settingsOf(undefined, { chardev, monitor: ['c0', 'chardev=c0,mode=control'] }),
    ).toThrow("chardev 'c0' not found");
    expect(() => settingsOf(undefined, { chardev: ['socket,id=c0,path=/run/x'] })).toThrow(
      'server=on',
    );
  });
});

it('a secret is not in what is said of its option', () => {
  for (const text of [
    'secret,id=s,data=hunter2,bogus=on',
    'secret,data=hunter2,x',
    '{"qom-type": "secret", "data" : "hunter2", "id": 7}',
    '{"qom-type": "secret", "data": "hunter2", oops}',
  ]) {
    const said = (): unknown => optionOf(objectOptions, text, 'qom-type');
    expect(said).toThrow(/secret.*data/);
    expect(said).not.toThrow(/hunter2/);
  }
});
