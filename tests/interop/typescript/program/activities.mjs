// What the workflows have done for them.
import { ApplicationFailure } from '@temporalio/common';
import { CompleteAsyncError, Context, sleep } from '@temporalio/activity';

// Tokens of activities that someone else completes.
export const handed = [];

export async function succeedAt(attempt) {
  if (Context.current().info.attempt < attempt) throw ApplicationFailure.create({ message: 'not yet', type: 'NotYet' });
  return attempt;
}

export async function doze(milliseconds) {
  await sleep(milliseconds);
}

export async function heartbeatForever() {
  for (let count = 1; ; count++) {
    Context.current().heartbeat(count);
    await sleep(20);
  }
}

export async function hand() {
  const { taskToken, workflowExecution, activityId } = Context.current().info;
  handed.push({ taskToken, workflowId: workflowExecution.workflowId, activityId });
  throw new CompleteAsyncError();
}

export async function text(length) {
  return 'x'.repeat(length);
}

export async function priority() {
  return Context.current().info.priority ?? {};
}
