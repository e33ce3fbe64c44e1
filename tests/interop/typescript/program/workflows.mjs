// Small workflows, one for each thing to try.
import {
  ActivityFailure,
  ApplicationFailure,
  CancellationScope,
  TimeoutFailure,
  condition,
  continueAsNew,
  defineQuery,
  defineSignal,
  isCancellation,
  patched,
  proxyActivities,
  proxyLocalActivities,
  setHandler,
  sleep,
  upsertMemo,
  upsertSearchAttributes,
  uuid4,
  workflowInfo,
} from '@temporalio/workflow';

const quick = { startToCloseTimeout: '5s', retry: { initialInterval: '10ms' } };
const known = proxyActivities(quick);

export async function retried() {
  return known.succeedAt(3);
}

// Lets an activity run into each of the four timeouts, and returns their types.
export async function timingOut() {
  const once = { maximumAttempts: 1 };
  const all = [
    { startToCloseTimeout: '200ms', retry: once },
    { startToCloseTimeout: '10s', heartbeatTimeout: '200ms', retry: once },
    { startToCloseTimeout: '10s', scheduleToStartTimeout: '200ms', taskQueue: 'nobody' },
    { scheduleToCloseTimeout: '2s', retry: once },
  ].map(async (options) => {
    try {
      await proxyActivities(options).doze(5000);
      return 'none';
    } catch (error) {
      if (error instanceof ActivityFailure && error.cause instanceof TimeoutFailure) return error.cause.timeoutType;
      throw error;
    }
  });
  return (await Promise.all(all)).join(' ');
}

export async function heartbeating() {
  const options = { startToCloseTimeout: '30s', heartbeatTimeout: '10s', cancellationType: 'WAIT_CANCELLATION_COMPLETED' };
  await proxyActivities(options).heartbeatForever();
}

export async function handing() {
  return (await Promise.all([known.hand(), known.hand()])).sort().join(' ');
}

// Cancels a timer, and an activity in the very task that schedules it and another one.
export async function cancelling() {
  const scope = new CancellationScope({ cancellable: true });
  const timer = scope.run(() => sleep('1 hour'));
  timer.catch(() => undefined);
  await sleep(50);
  const unwanted = scope.run(() => known.doze(1));
  unwanted.catch(() => undefined);
  scope.cancel();
  const attempt = await known.succeedAt(1);
  for (const cancelled of [timer, unwanted]) {
    try {
      await cancelled;
      throw new Error('not cancelled');
    } catch (error) {
      if (!isCancellation(error)) throw error;
    }
  }
  return attempt;
}

export async function oneActivity(length, eager) {
  const options = { startToCloseTimeout: '5s', allowEagerDispatch: eager };
  return (await proxyActivities(options).text(length)).length;
}

export const add = defineSignal('add');
export const sum = defineQuery('sum');

export async function accumulating() {
  let total = 0;
  let ended = false;
  setHandler(add, (added) => {
    total += added;
    ended = added === 0;
  });
  setHandler(sum, () => total);
  await condition(() => ended);
  return total;
}

export const recorded = defineQuery('recorded');

// Records markers, then waits for a signal, so that they can be replayed.
export async function marking() {
  let text = '';
  let ended = false;
  setHandler(add, () => {
    ended = true;
  });
  setHandler(recorded, () => text);
  const attempt = await proxyLocalActivities(quick).succeedAt(2);
  const version = patched('change') ? 'new' : 'old';
  text = `${attempt} ${version} ${uuid4()}`;
  await condition(() => ended);
  return text;
}

export async function countingDown(from) {
  if (from > 0) await continueAsNew(from - 1);
  return workflowInfo().continuedFromExecutionRunId;
}

export async function failingTwice() {
  const { attempt } = workflowInfo();
  if (attempt < 3) throw ApplicationFailure.create({ message: 'not yet' });
  return attempt;
}

// Returns whether an earlier run of its cron schedule left it a result.
export async function returning() {
  return workflowInfo().lastResult !== undefined;
}

export async function describing() {
  upsertMemo({ note: 'after', gone: null });
  upsertSearchAttributes({ InteropKeyword: ['changed'], InteropInt: [] });
}

export async function prioritized() {
  const options = { startToCloseTimeout: '5s', allowEagerDispatch: false, priority: { priorityKey: 4 } };
  return proxyActivities(options).priority();
}

export async function reading(signals) {
  let bytes = 0;
  let count = 0;
  setHandler(add, (text) => {
    bytes += text.length;
    count++;
  });
  await condition(() => count === signals);
  return bytes;
}
