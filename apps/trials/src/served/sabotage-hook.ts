// Loaded by a server before its own modules: see `sabotaged`.
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import { SABOTAGES, type Sabotage } from './sabotage.ts';

/** The server's modules are read with the changes, and the bundle's place is taken by the sources. */
function install({ name, file, changes }: Sabotage): void {
  const repository = new URL('../../../../', import.meta.url);
  const target = new URL(file, repository).href;
  const [bundle, sources] = ['apps/server/dist/main.js', 'apps/server/src/main.ts'].map(
    (path) => new URL(path, repository).href,
  );
  registerHooks({
    resolve: (specifier, context, next) => {
      const found = next(specifier, context);
      return found.url === bundle && sources !== undefined ? next(sources, context) : found;
    },
    load: (url, context, next) => {
      const loaded = next(url, context);
      if (url !== target) return loaded;
      let text = String(loaded.source);
      for (const [found, instead] of changes) {
        if (text.split(found).length !== 2)
          throw new Error(`sabotage '${name}': ${fileURLToPath(url)} does not say ${found} once`);
        text = text.replace(found, () => instead);
      }
      return { ...loaded, source: text };
    },
  });
}

const wanted = process.env['DOWNFOLD_SABOTAGE'];
const sabotage = SABOTAGES.find(({ name }) => name === wanted);
if (sabotage === undefined) throw new Error(`no sabotage is called '${wanted}'`);
install(sabotage);
