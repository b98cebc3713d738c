// Loaded into a server and its threads: what they could give back does not count as what they have taken.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
setInterval(runInNewContext('gc'), 250).unref();
