-- The schema of version 1 as the release that had it made it, for tests of what leads from there. Never changed.

CREATE TABLE migration (version INTEGER NOT NULL, applied_at INTEGER NOT NULL, PRIMARY KEY (version)) STRICT;

CREATE TABLE meta (name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (name)) STRICT;

CREATE TABLE node (node TEXT NOT NULL, incarnation INTEGER NOT NULL, batch INTEGER NOT NULL,
    PRIMARY KEY (node)) STRICT;

CREATE TABLE namespace (namespace_id TEXT NOT NULL, name TEXT NOT NULL, state INTEGER NOT NULL,
    description TEXT NOT NULL, owner_email TEXT NOT NULL, data TEXT NOT NULL, retention_seconds INTEGER NOT NULL,
    created_at INTEGER NOT NULL, search_attributes TEXT NOT NULL, PRIMARY KEY (namespace_id)) STRICT;

CREATE TABLE run (namespace_id TEXT NOT NULL, workflow_id TEXT NOT NULL, run_id TEXT NOT NULL,
    version INTEGER NOT NULL, is_current INTEGER NOT NULL, status INTEGER NOT NULL, workflow_type TEXT NOT NULL,
    task_queue TEXT NOT NULL, started_at INTEGER NOT NULL, execution_at INTEGER NOT NULL, closed_at INTEGER,
    next_event_id INTEGER NOT NULL, history_size_bytes INTEGER NOT NULL, transition_count INTEGER NOT NULL,
    alarm_at INTEGER, task_state TEXT NOT NULL, task_attempt INTEGER NOT NULL, task_scheduled_at INTEGER,
    task_started_at INTEGER, task_ready_queue TEXT, task_ready_at INTEGER, memo BLOB NOT NULL,
    search_attributes BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (run_id)) STRICT;

CREATE TABLE event (run_id TEXT NOT NULL, event_id INTEGER NOT NULL, event_type INTEGER NOT NULL,
    event_at INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (run_id, event_id)) STRICT;

CREATE TABLE activity (run_id TEXT NOT NULL, scheduled_event_id INTEGER NOT NULL, namespace_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL, activity_id TEXT NOT NULL, activity_type TEXT NOT NULL, task_queue TEXT NOT NULL,
    status TEXT NOT NULL, cancel_requested INTEGER NOT NULL, attempt INTEGER NOT NULL, ready_at INTEGER,
    scheduled_at INTEGER NOT NULL, started_at INTEGER, last_heartbeat_at INTEGER, last_failure TEXT,
    last_worker TEXT, state BLOB NOT NULL, PRIMARY KEY (run_id, scheduled_event_id)) STRICT;

CREATE TABLE timer (run_id TEXT NOT NULL, timer_id TEXT NOT NULL, started_event_id INTEGER NOT NULL,
    fires_at INTEGER NOT NULL, PRIMARY KEY (run_id, timer_id)) STRICT, WITHOUT ROWID;

CREATE TABLE buffered_event (run_id TEXT NOT NULL, position INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (run_id, position)) STRICT;

CREATE TABLE request (run_id TEXT NOT NULL, request_id TEXT NOT NULL, PRIMARY KEY (run_id, request_id)) STRICT,
    WITHOUT ROWID;

CREATE TABLE child (run_id TEXT NOT NULL, initiated_event_id INTEGER NOT NULL, namespace_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL, child_workflow_id TEXT NOT NULL, child_run_id TEXT, child_workflow_type TEXT NOT NULL,
    started_event_id INTEGER NOT NULL, initiated_at INTEGER NOT NULL, PRIMARY KEY (run_id,
    initiated_event_id)) STRICT, WITHOUT ROWID;

CREATE TABLE outbox (run_id TEXT NOT NULL, number INTEGER NOT NULL, namespace_id TEXT NOT NULL,
    workflow_id TEXT NOT NULL, receiver_namespace_id TEXT NOT NULL, receiver_workflow_id TEXT NOT NULL,
    kind TEXT NOT NULL, initiated_event_id INTEGER NOT NULL, sent_at INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (run_id, number)) STRICT;

CREATE TABLE inbox (sender_run_id TEXT NOT NULL, namespace_id TEXT NOT NULL, workflow_id TEXT NOT NULL,
    number INTEGER NOT NULL, run_id TEXT NOT NULL, PRIMARY KEY (sender_run_id, namespace_id, workflow_id)) STRICT,
    WITHOUT ROWID;

CREATE UNIQUE INDEX namespace_name ON namespace (name);

CREATE UNIQUE INDEX run_current ON run (namespace_id, workflow_id) WHERE is_current;

CREATE INDEX run_ready_task ON run (namespace_id, task_ready_queue, task_ready_at,
    run_id) WHERE task_ready_queue IS NOT NULL;

CREATE INDEX run_alarm ON run (alarm_at, run_id) WHERE alarm_at IS NOT NULL;

CREATE INDEX run_by_start ON run (namespace_id, started_at, run_id);

CREATE INDEX run_by_status ON run (namespace_id, status, started_at, run_id);

CREATE INDEX run_by_type ON run (namespace_id, workflow_type, started_at, run_id);

CREATE INDEX run_by_workflow ON run (namespace_id, workflow_id, started_at, run_id);

CREATE INDEX activity_ready ON activity (namespace_id, task_queue, ready_at, run_id,
    scheduled_event_id) WHERE ready_at IS NOT NULL;

CREATE VIEW workflows AS SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.is_current,
    run.workflow_type, run.task_queue,
       CASE run.status WHEN 0 THEN 'Unspecified' WHEN 1 THEN 'Running' WHEN 2 THEN 'Completed'
    WHEN 3 THEN 'Failed' WHEN 4 THEN 'Canceled' WHEN 5 THEN 'Terminated' WHEN 6 THEN 'ContinuedAsNew'
    WHEN 7 THEN 'TimedOut' WHEN 8 THEN 'Paused' ELSE CAST(run.status AS TEXT) END AS status,
    strftime('%Y-%m-%dT%H:%M:%S', run.started_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    run.started_at / 1000000 % 1000) AS started,
       strftime('%Y-%m-%dT%H:%M:%S', run.execution_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    run.execution_at / 1000000 % 1000) AS first_task_due, strftime('%Y-%m-%dT%H:%M:%S', run.closed_at / 1000000000,
    'unixepoch') || printf('.%03dZ', run.closed_at / 1000000 % 1000) AS closed,
       run.next_event_id - 1 AS history_length, run.history_size_bytes,
       run.transition_count AS state_transition_count,
       run.task_state AS workflow_task, strftime('%Y-%m-%dT%H:%M:%S', run.alarm_at / 1000000000,
    'unixepoch') || printf('.%03dZ', run.alarm_at / 1000000 % 1000) AS next_alarm
FROM namespace
JOIN run ON run.namespace_id = namespace.namespace_id;

CREATE VIEW pending_activities AS SELECT namespace.name AS namespace, activity.workflow_id, activity.run_id,
    activity.activity_id,
       activity.activity_type, activity.task_queue, activity.status, activity.attempt, activity.cancel_requested,
       strftime('%Y-%m-%dT%H:%M:%S', activity.scheduled_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    activity.scheduled_at / 1000000 % 1000) AS scheduled, strftime('%Y-%m-%dT%H:%M:%S',
    activity.ready_at / 1000000000, 'unixepoch') || printf('.%03dZ', activity.ready_at / 1000000 % 1000) AS ready,
       strftime('%Y-%m-%dT%H:%M:%S', activity.started_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    activity.started_at / 1000000 % 1000) AS started, strftime('%Y-%m-%dT%H:%M:%S',
    activity.last_heartbeat_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    activity.last_heartbeat_at / 1000000 % 1000) AS last_heartbeat,
       activity.last_failure, activity.last_worker, activity.scheduled_event_id
FROM namespace
JOIN activity ON activity.namespace_id = namespace.namespace_id;

CREATE VIEW workflow_tasks_not_completed AS SELECT namespace.name AS namespace, run.workflow_id, run.run_id,
    run.workflow_type, run.task_queue,
       run.task_state AS status, run.task_attempt AS attempt, run.task_ready_queue AS ready_in_queue,
       strftime('%Y-%m-%dT%H:%M:%S', run.task_scheduled_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    run.task_scheduled_at / 1000000 % 1000) AS scheduled, strftime('%Y-%m-%dT%H:%M:%S',
    run.task_started_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    run.task_started_at / 1000000 % 1000) AS started
FROM namespace CROSS JOIN run
WHERE run.namespace_id = namespace.namespace_id AND run.status IN (1, 8) AND run.task_state <> 'none';

CREATE VIEW timers AS SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.workflow_type,
    timer.timer_id,
       timer.started_event_id, strftime('%Y-%m-%dT%H:%M:%S', timer.fires_at / 1000000000,
    'unixepoch') || printf('.%03dZ', timer.fires_at / 1000000 % 1000) AS fires
FROM timer
JOIN run ON run.run_id = timer.run_id
JOIN namespace ON namespace.namespace_id = run.namespace_id;

CREATE VIEW pending_children AS SELECT namespace.name AS namespace, child.workflow_id, child.run_id,
    child.child_workflow_id, child.child_run_id,
       child.child_workflow_type, CASE WHEN child.child_run_id IS NULL THEN 'initiated' ELSE 'started' END AS status,
       strftime('%Y-%m-%dT%H:%M:%S', child.initiated_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    child.initiated_at / 1000000 % 1000) AS initiated, child.initiated_event_id
FROM child
JOIN namespace ON namespace.namespace_id = child.namespace_id;

CREATE VIEW messages AS SELECT namespace.name AS namespace, outbox.workflow_id, outbox.run_id, outbox.kind,
       coalesce(receiver.name, outbox.receiver_namespace_id) AS to_namespace,
       outbox.receiver_workflow_id AS to_workflow_id, strftime('%Y-%m-%dT%H:%M:%S', outbox.sent_at / 1000000000,
    'unixepoch') || printf('.%03dZ', outbox.sent_at / 1000000 % 1000) AS since, outbox.number,
       outbox.initiated_event_id
FROM outbox
JOIN namespace ON namespace.namespace_id = outbox.namespace_id
LEFT JOIN namespace AS receiver ON receiver.namespace_id = outbox.receiver_namespace_id;

CREATE VIEW task_queue_backlog AS SELECT namespace.name AS namespace, ready.task_queue, ready.kind, ready.tasks,
    strftime('%Y-%m-%dT%H:%M:%S', ready.oldest_ready_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    ready.oldest_ready_at / 1000000 % 1000) AS oldest
FROM (
    SELECT namespace_id, task_ready_queue AS task_queue, 'workflow' AS kind, count(*) AS tasks,
           min(task_ready_at) AS oldest_ready_at
    FROM run WHERE task_ready_queue IS NOT NULL GROUP BY namespace_id, task_ready_queue
    UNION ALL
    SELECT namespace_id, task_queue, 'activity', count(*), min(ready_at)
    FROM activity WHERE ready_at IS NOT NULL AND status = 'scheduled' GROUP BY namespace_id, task_queue
) AS ready
JOIN namespace ON namespace.namespace_id = ready.namespace_id;

CREATE VIEW history AS SELECT namespace.name AS namespace, run.workflow_id, event.run_id, event.event_id,
       CASE event.event_type WHEN 0 THEN 'Unspecified' WHEN 1 THEN 'WorkflowExecutionStarted'
    WHEN 2 THEN 'WorkflowExecutionCompleted' WHEN 3 THEN 'WorkflowExecutionFailed'
    WHEN 4 THEN 'WorkflowExecutionTimedOut' WHEN 5 THEN 'WorkflowTaskScheduled'
    WHEN 6 THEN 'WorkflowTaskStarted' WHEN 7 THEN 'WorkflowTaskCompleted' WHEN 8 THEN 'WorkflowTaskTimedOut'
    WHEN 9 THEN 'WorkflowTaskFailed' WHEN 10 THEN 'ActivityTaskScheduled' WHEN 11 THEN 'ActivityTaskStarted'
    WHEN 12 THEN 'ActivityTaskCompleted' WHEN 13 THEN 'ActivityTaskFailed' WHEN 14 THEN 'ActivityTaskTimedOut'
    WHEN 15 THEN 'ActivityTaskCancelRequested' WHEN 16 THEN 'ActivityTaskCanceled' WHEN 17 THEN 'TimerStarted'
    WHEN 18 THEN 'TimerFired' WHEN 19 THEN 'TimerCanceled' WHEN 20 THEN 'WorkflowExecutionCancelRequested'
    WHEN 21 THEN 'WorkflowExecutionCanceled' WHEN 22 THEN 'RequestCancelExternalWorkflowExecutionInitiated'
    WHEN 23 THEN 'RequestCancelExternalWorkflowExecutionFailed'
    WHEN 24 THEN 'ExternalWorkflowExecutionCancelRequested' WHEN 25 THEN 'MarkerRecorded'
    WHEN 26 THEN 'WorkflowExecutionSignaled' WHEN 27 THEN 'WorkflowExecutionTerminated'
    WHEN 28 THEN 'WorkflowExecutionContinuedAsNew' WHEN 29 THEN 'StartChildWorkflowExecutionInitiated'
    WHEN 30 THEN 'StartChildWorkflowExecutionFailed' WHEN 31 THEN 'ChildWorkflowExecutionStarted'
    WHEN 32 THEN 'ChildWorkflowExecutionCompleted' WHEN 33 THEN 'ChildWorkflowExecutionFailed'
    WHEN 34 THEN 'ChildWorkflowExecutionCanceled' WHEN 35 THEN 'ChildWorkflowExecutionTimedOut'
    WHEN 36 THEN 'ChildWorkflowExecutionTerminated' WHEN 37 THEN 'SignalExternalWorkflowExecutionInitiated'
    WHEN 38 THEN 'SignalExternalWorkflowExecutionFailed' WHEN 39 THEN 'ExternalWorkflowExecutionSignaled'
    WHEN 40 THEN 'UpsertWorkflowSearchAttributes' WHEN 47 THEN 'WorkflowExecutionUpdateAdmitted'
    WHEN 41 THEN 'WorkflowExecutionUpdateAccepted' WHEN 42 THEN 'WorkflowExecutionUpdateRejected'
    WHEN 43 THEN 'WorkflowExecutionUpdateCompleted' WHEN 44 THEN 'WorkflowPropertiesModifiedExternally'
    WHEN 45 THEN 'ActivityPropertiesModifiedExternally' WHEN 46 THEN 'WorkflowPropertiesModified'
    WHEN 48 THEN 'NexusOperationScheduled' WHEN 49 THEN 'NexusOperationStarted'
    WHEN 50 THEN 'NexusOperationCompleted' WHEN 51 THEN 'NexusOperationFailed'
    WHEN 52 THEN 'NexusOperationCanceled' WHEN 53 THEN 'NexusOperationTimedOut'
    WHEN 54 THEN 'NexusOperationCancelRequested' WHEN 55 THEN 'WorkflowExecutionOptionsUpdated'
    WHEN 56 THEN 'NexusOperationCancelRequestCompleted' WHEN 57 THEN 'NexusOperationCancelRequestFailed'
    WHEN 58 THEN 'WorkflowExecutionPaused' WHEN 59 THEN 'WorkflowExecutionUnpaused'
    WHEN 60 THEN 'WorkflowExecutionTimeSkippingTransitioned' ELSE CAST(event.event_type AS TEXT) END AS event_type,
    strftime('%Y-%m-%dT%H:%M:%S', event.event_at / 1000000000, 'unixepoch') || printf('.%03dZ',
    event.event_at / 1000000 % 1000) AS time,
       length(event.data) AS size_bytes
FROM event
JOIN run ON run.run_id = event.run_id
JOIN namespace ON namespace.namespace_id = run.namespace_id;

CREATE VIEW waiting AS SELECT namespace, workflow_id, run_id, workflow_type, 'workflow task' AS waits_for,
    workflow_type AS name,
       coalesce(ready_in_queue, task_queue) AS task_queue, coalesce(started, scheduled) AS since,
       NULL AS until, attempt,
       CASE status WHEN 'started' THEN 'a worker has it' ELSE 'no worker has taken it' END AS reason
FROM workflow_tasks_not_completed
UNION ALL
SELECT pending_activities.namespace, pending_activities.workflow_id, pending_activities.run_id, run.workflow_type,
       'activity', pending_activities.activity_type, pending_activities.task_queue,
       coalesce(pending_activities.started, pending_activities.scheduled),
       CASE pending_activities.status WHEN 'backing_off' THEN pending_activities.ready END,
    pending_activities.attempt,
       CASE pending_activities.status
           WHEN 'started' THEN 'a worker has it'
           WHEN 'backing_off' THEN 'it failed and will be retried'
           ELSE 'no worker has taken it'
       END || coalesce('; last failure: ' || pending_activities.last_failure, '')
FROM pending_activities
JOIN run ON run.run_id = pending_activities.run_id
UNION ALL
SELECT namespace, workflow_id, run_id, workflow_type, 'timer', timer_id, NULL, NULL, fires, NULL, 'it is not due yet'
FROM timers
UNION ALL
SELECT pending_children.namespace, pending_children.workflow_id, pending_children.run_id, run.workflow_type,
       'child workflow', pending_children.child_workflow_type, NULL, pending_children.initiated, NULL, NULL,
       CASE pending_children.status WHEN 'started' THEN 'it has not closed: ' ELSE 'it is being started: ' END
       || pending_children.child_workflow_id
FROM pending_children
JOIN run ON run.run_id = pending_children.run_id
UNION ALL
SELECT messages.namespace, messages.workflow_id, messages.run_id, run.workflow_type, 'delivery', messages.kind, NULL,
       messages.since, NULL, NULL, 'not delivered yet to ' || messages.to_workflow_id
FROM messages CROSS JOIN run
WHERE run.run_id = messages.run_id AND run.status IN (1, 8)
UNION ALL
SELECT namespace.name, run.workflow_id, run.run_id, run.workflow_type, 'message', NULL, NULL, NULL, NULL, NULL,
       'nothing is pending: only a message from outside can move it'
FROM namespace CROSS JOIN run
WHERE run.namespace_id = namespace.namespace_id AND run.status IN (1, 8) AND run.task_state = 'none'
  AND NOT EXISTS (SELECT 1 FROM activity WHERE activity.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM timer WHERE timer.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM child WHERE child.run_id = run.run_id)
  AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.run_id = run.run_id);
