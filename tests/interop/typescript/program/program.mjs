// A program of the TypeScript SDK that does what users of a server do, and says of each thing whether it went well.
//
// Usage: node program.mjs ADDRESS EXECUTABLE. It prints a line for each scenario, "ok NAME" or "failed NAME: WHY". It
// knows nothing of the server but its address; EXECUTABLE is what TestWorkflowEnvironment.createLocal is to start.
import { fileURLToPath } from 'node:url';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, NativeConnection, Runtime, Worker, bundleWorkflowCode } from '@temporalio/worker';
import * as activities from './activities.mjs';
import { scenarios } from './scenarios.mjs';

const [address, executable] = process.argv.slice(2);
const logger = new DefaultLogger('ERROR', ({ level, message }) => process.stderr.write(`${level} ${message}\n`));
Runtime.install({ logger, telemetryOptions: { logging: { filter: { core: 'ERROR' }, forward: {} } } });

const connection = await Connection.connect({ address });
const native = await NativeConnection.connect({ address });
const workflowsPath = fileURLToPath(new URL('./workflows.mjs', import.meta.url));
const world = {
  executable,
  client: new Client({ connection }),
  workflowBundle: await bundleWorkflowCode({ workflowsPath, logger }),
  activities,
  // Makes a worker that knows every workflow and activity of this program, unless its options say otherwise.
  worker: (taskQueue, options) => {
    const known = { workflowBundle: world.workflowBundle, activities };
    return Worker.create({ connection: native, taskQueue, ...known, ...options });
  },
};

async function outcome(name, run) {
  try {
    await run(world);
    return `ok ${name}`;
  } catch (error) {
    return `failed ${name}: ${error.message.replaceAll('\n', ' ')} ${error.cause?.message ?? ''}`;
  }
}

const shared = await world.worker('ts-shared', { maxHeartbeatThrottleInterval: '50ms' });
await shared.runUntil(async () => {
  const all = Object.entries(scenarios).map(async ([name, run]) => console.log(await outcome(name, run)));
  await Promise.all(all);
});
await native.close();
await connection.close();
