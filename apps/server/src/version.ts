import manifest from '../package.json' with { type: 'json' };

/** The version that package.json says. */
export const VERSION: string = manifest.version;
