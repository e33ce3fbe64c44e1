// What the program tries, by name.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ActivityNotFoundError,
  WorkflowExecutionAlreadyStartedError,
  WorkflowFailedError,
  WorkflowNotFoundError,
} from '@temporalio/client';
import { CancelledFailure, TerminatedFailure } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { Worker } from '@temporalio/worker';

// How long a busy machine may take for a thing, in milliseconds.
const PATIENCE = 20_000;

function start({ client }, workflow, options = {}) {
  return client.workflow.start(workflow, {
    taskQueue: 'ts-shared',
    workflowId: randomUUID(),
    workflowExecutionTimeout: '40s',
    ...options,
  });
}

const run = async (world, workflow, options) => (await start(world, workflow, options)).result();

async function eventually(what, look) {
  for (const deadline = Date.now() + PATIENCE; !(await look()); await sleep(20)) {
    assert(Date.now() < deadline, `never seen: ${what}`);
  }
}

async function failureOf(promise, kind) {
  const error = await promise.then(
    () => assert.fail('it succeeded'),
    (reason) => reason
  );
  assert(error instanceof kind, `${error}`);
  return error;
}

async function list({ client }, query) {
  const found = [];
  for await (const execution of client.workflow.list({ query })) found.push(execution);
  return found;
}

export const scenarios = {
  'activities are retried': async (world) => assert.equal(await run(world, 'retried'), 3),

  'activities time out': async (world) =>
    assert.equal(await run(world, 'timingOut'), 'START_TO_CLOSE HEARTBEAT SCHEDULE_TO_START SCHEDULE_TO_CLOSE'),

  'cancellation reaches an activity that heartbeats': async (world) => {
    const handle = await start(world, 'heartbeating');
    const pending = async () => (await handle.describe()).raw.pendingActivities;
    await eventually('a heartbeat', async () => (await pending())[0]?.heartbeatDetails != null);
    await handle.cancel();
    const error = await failureOf(handle.result(), WorkflowFailedError);
    assert(error.cause instanceof CancelledFailure, `${error.cause}`);
    assert.equal((await handle.describe()).status.name, 'CANCELLED');
  },

  'activities complete asynchronously': async (world) => {
    const handle = await start(world, 'handing');
    const { handed } = world.activities;
    await eventually('two activities', async () => handed.length === 2);
    const [{ taskToken }, byId] = handed;
    await world.client.activity.heartbeat(taskToken, 'waiting');
    await world.client.activity.complete(taskToken, 'by token');
    await world.client.activity.complete({ workflowId: byId.workflowId, activityId: byId.activityId }, 'by id');
    assert.equal(await handle.result(), 'by id by token');
    await failureOf(world.client.activity.complete(taskToken, 'again'), ActivityNotFoundError);
  },

  'timers and activities are cancelled': async (world) => assert.equal(await run(world, 'cancelling'), 1),

  'eager activities save a transition': async (world) => {
    for (const [eager, transitions] of [
      [false, 7],
      [true, 6],
    ]) {
      const handle = await start(world, 'oneActivity', { args: [1, eager] });
      assert.equal(await handle.result(), 1);
      const info = (await handle.describe()).raw.workflowExecutionInfo;
      assert.equal(Number(info.historyLength), 11);
      assert.equal(Number(info.stateTransitionCount), transitions);
    }
  },

  'signals and queries': async (world) => {
    const options = { workflowId: 'ts-accumulating', taskQueue: 'ts-shared', signal: 'add' };
    await world.client.workflow.signalWithStart('accumulating', { ...options, signalArgs: [1] });
    const handle = await world.client.workflow.signalWithStart('accumulating', { ...options, signalArgs: [2] });
    assert.equal(await handle.query('sum'), 3);
    await handle.signal('add', 4);
    assert.equal(await handle.query('sum'), 7);
    await handle.signal('add', 0);
    assert.equal(await handle.result(), 7);
    assert.equal(await handle.query('sum'), 7);
    await assert.rejects(handle.query('unknown'));
  },

  'markers are replayed': async (world) => {
    const handle = await start(world, 'marking', { taskQueue: 'ts-marking' });
    const first = await world.worker('ts-marking');
    // Not asked by query: one that comes while the local activity runs makes the SDK answer the task in two parts, in
    // an order that it then cannot replay, whatever the server.
    const historyLength = async () => Number((await handle.describe()).raw.workflowExecutionInfo.historyLength);
    const recorded = await first.runUntil(async () => {
      await eventually('the markers', async () => (await historyLength()) >= 7);
      return handle.query('recorded');
    });
    assert.match(recorded, /^2 new [0-9a-f-]{36}$/);
    const second = await world.worker('ts-marking');
    await second.runUntil(async () => {
      assert.equal(await handle.query('recorded'), recorded);
      await handle.signal('add', 0);
      assert.equal(await handle.result(), recorded);
    });
  },

  'runs continue as new': async (world) => {
    const handle = await start(world, 'countingDown', { args: [3] });
    assert.notEqual(await handle.result(), handle.firstExecutionRunId);
    assert.equal((await list(world, `WorkflowId = '${handle.workflowId}'`)).length, 4);
  },

  'runs are retried': async (world) => {
    const retry = { initialInterval: '10ms', maximumAttempts: 5 };
    assert.equal(await run(world, 'failingTwice', { retry }), 3);
  },

  'runs follow a cron schedule': async (world) => {
    const handle = await start(world, 'returning', { cronSchedule: '@every 1s' });
    const runs = () => list(world, `WorkflowId = '${handle.workflowId}' AND ExecutionStatus = 'Completed'`);
    await eventually('two runs', async () => (await runs()).length >= 2);
    await handle.terminate('enough');
    const [later, earlier] = await runs();
    const results = [earlier, later].map(async ({ runId }) => {
      const { events } = await world.client.workflow.getHandle(handle.workflowId, runId).fetchHistory();
      const { result } = events.at(-1).workflowExecutionCompletedEventAttributes;
      return JSON.parse(Buffer.from(result.payloads[0].data).toString());
    });
    assert.deepEqual(await Promise.all(results), [false, true]);
  },

  'a start is delayed': async (world) => {
    const began = Date.now();
    await run(world, 'oneActivity', { args: [1, true], startDelay: '700ms' });
    assert(Date.now() - began >= 700);
  },

  'memo and search attributes': async (world) => {
    const handle = await start(world, 'describing', {
      memo: { note: 'before', gone: 'soon' },
      searchAttributes: { InteropKeyword: ['given'], InteropInt: [7] },
    });
    await handle.result();
    const told = await handle.describe();
    assert.deepEqual(told.memo, { note: 'after' });
    assert.deepEqual(told.searchAttributes.InteropKeyword, ['changed']);
    assert.equal(told.searchAttributes.InteropInt, undefined);
    const { count } = await world.client.workflow.count(
      `WorkflowId = '${handle.workflowId}' AND ExecutionStatus = 'Completed'`
    );
    assert.equal(count, 1);
  },

  'summary and priority': async (world) => {
    const priority = { priorityKey: 2, fairnessKey: 'tenant' };
    const handle = await start(world, 'prioritized', { staticSummary: 'an order', priority });
    const given = await handle.result();
    assert.deepEqual([given.priorityKey, given.fairnessKey], [4, 'tenant']);
    assert.equal(await (await handle.describe()).staticSummary(), 'an order');
  },

  'ids are reused by policy': async (world) => {
    const options = { workflowId: 'ts-ids', args: [] };
    const first = await start(world, 'accumulating', options);
    const same = await start(world, 'accumulating', { ...options, workflowIdConflictPolicy: 'USE_EXISTING' });
    assert.equal(same.firstExecutionRunId, first.firstExecutionRunId);
    await failureOf(start(world, 'accumulating', options), WorkflowExecutionAlreadyStartedError);
    const second = await start(world, 'accumulating', { ...options, workflowIdConflictPolicy: 'TERMINATE_EXISTING' });
    const error = await failureOf(first.result(), WorkflowFailedError);
    assert(error.cause instanceof TerminatedFailure, `${error.cause}`);
    await second.signal('add', 0);
    assert.equal(await second.result(), 0);
    const rejecting = { ...options, workflowIdReusePolicy: 'REJECT_DUPLICATE' };
    await failureOf(start(world, 'accumulating', rejecting), WorkflowExecutionAlreadyStartedError);
    await failureOf(second.signal('add', 1), WorkflowNotFoundError);
  },

  'another worker takes over': async (world) => {
    const handle = await start(world, 'accumulating', { taskQueue: 'ts-takeover' });
    await handle.signal('add', 5);
    const first = await world.worker('ts-takeover');
    assert.equal(await first.runUntil(() => handle.query('sum')), 5);
    await handle.signal('add', 0);
    const second = await world.worker('ts-takeover');
    assert.equal(await second.runUntil(() => handle.result()), 5);
    // A task left in the first worker's own queue would have timed out there.
    const { events } = await handle.fetchHistory();
    assert(!events.some((event) => event.workflowTaskTimedOutEventAttributes));
  },

  'a long history comes in pages': async (world) => {
    const handle = await start(world, 'reading', { taskQueue: 'ts-long', args: [30] });
    for (let sent = 0; sent < 30; sent++) await handle.signal('add', 'y'.repeat(300_000));
    const long = await world.worker('ts-long');
    await long.runUntil(async () => {
      assert.equal(await handle.result(), 9_000_000);
      assert.equal(await run(world, 'oneActivity', { taskQueue: 'ts-long', args: [1_500_000, false] }), 1_500_000);
    });
  },

  'a history is read and replayed': async (world) => {
    const handle = await start(world, 'retried');
    await handle.result();
    const { events } = await handle.fetchHistory();
    assert.equal(Number(events.at(-1).eventId), events.length);
    await Worker.runReplayHistory({ workflowBundle: world.workflowBundle }, { events });
  },

  'workers have roles': async (world) => {
    const onlyActivities = await world.worker('ts-roles', { workflowBundle: undefined });
    const onlyWorkflows = await world.worker('ts-roles', { activities: undefined });
    const both = () => onlyWorkflows.runUntil(run(world, 'retried', { taskQueue: 'ts-roles' }));
    assert.equal(await onlyActivities.runUntil(both()), 3);
  },

  'an idle worker stops at once': async (world) => {
    const idle = await world.worker('ts-idle');
    const running = idle.run();
    await sleep(300);
    const began = Date.now();
    idle.shutdown();
    await running;
    assert(Date.now() - began < PATIENCE / 2);
  },

  'the SDK starts the server itself': async (world) => {
    const environment = await TestWorkflowEnvironment.createLocal({
      server: {
        executable: { type: 'existing-path', path: world.executable },
        namespace: 'made-for-ts',
        extraArgs: ['--search-attribute', 'InteropKeyword=Keyword'],
      },
    });
    try {
      const { workflowBundle, activities } = world;
      const worker = await Worker.create({
        connection: environment.nativeConnection,
        namespace: environment.namespace,
        taskQueue: 'ts-own',
        workflowBundle,
        activities,
      });
      assert.equal(await worker.runUntil(run(environment, 'retried', { taskQueue: 'ts-own' })), 3);
    } finally {
      await environment.teardown();
    }
  },
};
