-- The schema of version 1 as the release that had it made it, for tests of what leads from there. Never changed.

CREATE TABLE migration (version bigint NOT NULL, applied_at bigint NOT NULL, PRIMARY KEY (version));

CREATE TABLE meta (name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, PRIMARY KEY (name));

CREATE TABLE node (node text COLLATE "C" NOT NULL, incarnation bigint NOT NULL, batch bigint NOT NULL,
    PRIMARY KEY (node));

CREATE TABLE namespace (namespace_id text COLLATE "C" NOT NULL, name text COLLATE "C" NOT NULL,
    state bigint NOT NULL, description text COLLATE "C" NOT NULL, owner_email text COLLATE "C" NOT NULL,
    data text COLLATE "C" NOT NULL, retention_seconds bigint NOT NULL, created_at bigint NOT NULL,
    search_attributes text COLLATE "C" NOT NULL, PRIMARY KEY (namespace_id));

CREATE TABLE run (namespace_id text COLLATE "C" NOT NULL, workflow_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL, version bigint NOT NULL, is_current boolean NOT NULL, status bigint NOT NULL,
    workflow_type text COLLATE "C" NOT NULL, task_queue text COLLATE "C" NOT NULL, started_at bigint NOT NULL,
    execution_at bigint NOT NULL, closed_at bigint, next_event_id bigint NOT NULL,
    history_size_bytes bigint NOT NULL, transition_count bigint NOT NULL, alarm_at bigint,
    task_state text COLLATE "C" NOT NULL, task_attempt bigint NOT NULL, task_scheduled_at bigint,
    task_started_at bigint, task_ready_queue text COLLATE "C", task_ready_at bigint, memo bytea NOT NULL,
    search_attributes bytea NOT NULL, state bytea NOT NULL, PRIMARY KEY (run_id));

CREATE TABLE event (run_id text COLLATE "C" NOT NULL, event_id bigint NOT NULL, event_type bigint NOT NULL,
    event_at bigint NOT NULL, data bytea NOT NULL, PRIMARY KEY (run_id, event_id));

CREATE TABLE activity (run_id text COLLATE "C" NOT NULL, scheduled_event_id bigint NOT NULL,
    namespace_id text COLLATE "C" NOT NULL, workflow_id text COLLATE "C" NOT NULL,
    activity_id text COLLATE "C" NOT NULL, activity_type text COLLATE "C" NOT NULL,
    task_queue text COLLATE "C" NOT NULL, status text COLLATE "C" NOT NULL, cancel_requested boolean NOT NULL,
    attempt bigint NOT NULL, ready_at bigint, scheduled_at bigint NOT NULL, started_at bigint,
    last_heartbeat_at bigint, last_failure text COLLATE "C", last_worker text COLLATE "C", state bytea NOT NULL,
    PRIMARY KEY (run_id, scheduled_event_id));

CREATE TABLE timer (run_id text COLLATE "C" NOT NULL, timer_id text COLLATE "C" NOT NULL,
    started_event_id bigint NOT NULL, fires_at bigint NOT NULL, PRIMARY KEY (run_id, timer_id));

CREATE TABLE buffered_event (run_id text COLLATE "C" NOT NULL, position bigint NOT NULL, data bytea NOT NULL,
    PRIMARY KEY (run_id, position));

CREATE TABLE request (run_id text COLLATE "C" NOT NULL, request_id text COLLATE "C" NOT NULL, PRIMARY KEY (run_id,
    request_id));

CREATE TABLE child (run_id text COLLATE "C" NOT NULL, initiated_event_id bigint NOT NULL,
    namespace_id text COLLATE "C" NOT NULL, workflow_id text COLLATE "C" NOT NULL,
    child_workflow_id text COLLATE "C" NOT NULL, child_run_id text COLLATE "C",
    child_workflow_type text COLLATE "C" NOT NULL, started_event_id bigint NOT NULL, initiated_at bigint NOT NULL,
    PRIMARY KEY (run_id, initiated_event_id));

CREATE TABLE outbox (run_id text COLLATE "C" NOT NULL, number bigint NOT NULL,
    namespace_id text COLLATE "C" NOT NULL, workflow_id text COLLATE "C" NOT NULL,
    receiver_namespace_id text COLLATE "C" NOT NULL, receiver_workflow_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL, initiated_event_id bigint NOT NULL, sent_at bigint NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (run_id, number));

CREATE TABLE inbox (sender_run_id text COLLATE "C" NOT NULL, namespace_id text COLLATE "C" NOT NULL,
    workflow_id text COLLATE "C" NOT NULL, number bigint NOT NULL, run_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (sender_run_id, namespace_id, workflow_id));

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
    to_char(timestamp '1970-01-01' + run.started_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS started,
       to_char(timestamp '1970-01-01' + run.execution_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS first_task_due,
    to_char(timestamp '1970-01-01' + run.closed_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS closed,
       run.next_event_id - 1 AS history_length, run.history_size_bytes,
       run.transition_count AS state_transition_count,
       run.task_state AS workflow_task,
    to_char(timestamp '1970-01-01' + run.alarm_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS next_alarm
FROM namespace
JOIN run ON run.namespace_id = namespace.namespace_id;

CREATE VIEW pending_activities AS SELECT namespace.name AS namespace, activity.workflow_id, activity.run_id,
    activity.activity_id,
       activity.activity_type, activity.task_queue, activity.status, activity.attempt, activity.cancel_requested,
       to_char(timestamp '1970-01-01' + activity.scheduled_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS scheduled,
    to_char(timestamp '1970-01-01' + activity.ready_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS ready,
       to_char(timestamp '1970-01-01' + activity.started_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS started,
    to_char(timestamp '1970-01-01' + activity.last_heartbeat_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS last_heartbeat,
       activity.last_failure, activity.last_worker, activity.scheduled_event_id
FROM namespace
JOIN activity ON activity.namespace_id = namespace.namespace_id;

CREATE VIEW workflow_tasks_not_completed AS SELECT namespace.name AS namespace, run.workflow_id, run.run_id,
    run.workflow_type, run.task_queue,
       run.task_state AS status, run.task_attempt AS attempt, run.task_ready_queue AS ready_in_queue,
       to_char(timestamp '1970-01-01' + run.task_scheduled_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS scheduled,
    to_char(timestamp '1970-01-01' + run.task_started_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS started
FROM namespace CROSS JOIN run
WHERE run.namespace_id = namespace.namespace_id AND run.status IN (1, 8) AND run.task_state <> 'none';

CREATE VIEW timers AS SELECT namespace.name AS namespace, run.workflow_id, run.run_id, run.workflow_type,
    timer.timer_id,
       timer.started_event_id, to_char(timestamp '1970-01-01' + timer.fires_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS fires
FROM timer
JOIN run ON run.run_id = timer.run_id
JOIN namespace ON namespace.namespace_id = run.namespace_id;

CREATE VIEW pending_children AS SELECT namespace.name AS namespace, child.workflow_id, child.run_id,
    child.child_workflow_id, child.child_run_id,
       child.child_workflow_type, CASE WHEN child.child_run_id IS NULL THEN 'initiated' ELSE 'started' END AS status,
       to_char(timestamp '1970-01-01' + child.initiated_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS initiated, child.initiated_event_id
FROM child
JOIN namespace ON namespace.namespace_id = child.namespace_id;

CREATE VIEW messages AS SELECT namespace.name AS namespace, outbox.workflow_id, outbox.run_id, outbox.kind,
       coalesce(receiver.name, outbox.receiver_namespace_id) AS to_namespace,
       outbox.receiver_workflow_id AS to_workflow_id,
    to_char(timestamp '1970-01-01' + outbox.sent_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS since, outbox.number,
       outbox.initiated_event_id
FROM outbox
JOIN namespace ON namespace.namespace_id = outbox.namespace_id
LEFT JOIN namespace AS receiver ON receiver.namespace_id = outbox.receiver_namespace_id;

CREATE VIEW task_queue_backlog AS SELECT namespace.name AS namespace, ready.task_queue, ready.kind, ready.tasks,
    to_char(timestamp '1970-01-01' + ready.oldest_ready_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS oldest
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
    to_char(timestamp '1970-01-01' + event.event_at / 1000000 * interval '1 millisecond',
    'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') AS time,
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
