package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/api/common/v1"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
)

// start starts a workflow; what the options leave open is filled in.
func (w world) start(options client.StartWorkflowOptions, definition any, arguments ...any) client.WorkflowRun {
	if options.TaskQueue == "" {
		options.TaskQueue = sharedQueue
	}
	options.WorkflowExecutionTimeout = 2 * patience
	run, err := w.client.ExecuteWorkflow(w, options, definition, arguments...)
	check(err)
	return run
}

func result[T any](w world, run client.WorkflowRun) (value T) {
	ctx, cancel := context.WithTimeout(w, patience)
	defer cancel()
	check(run.Get(ctx, &value))
	return value
}

func (w world) describe(run client.WorkflowRun) *workflowservice.DescribeWorkflowExecutionResponse {
	told, err := w.client.DescribeWorkflowExecution(w, run.GetID(), run.GetRunID())
	check(err)
	return told
}

func (w world) signal(run client.WorkflowRun, name string, value any) {
	check(w.client.SignalWorkflow(w, run.GetID(), run.GetRunID(), name, value))
}

func query[T any](w world, run client.WorkflowRun, name string) (value T) {
	answer, err := w.client.QueryWorkflow(w, run.GetID(), run.GetRunID(), name)
	check(err)
	check(answer.Get(&value))
	return value
}

func (w world) history(run client.WorkflowRun) (events []*history.HistoryEvent) {
	all := w.client.GetWorkflowHistory(w, run.GetID(), run.GetRunID(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for all.HasNext() {
		event, err := all.Next()
		check(err)
		events = append(events, event)
	}
	return events
}

func activitiesAreRetried(w world) {
	equal("the attempt", result[int32](w, w.start(client.StartWorkflowOptions{}, Retried)), 3)
}

func activitiesTimeOut(w world) {
	types := result[[]string](w, w.start(client.StartWorkflowOptions{}, TimingOut))
	equal("what timed out", strings.Join(types, " "), "StartToClose Heartbeat ScheduleToStart ScheduleToClose")
}

func cancellationReachesAnActivity(w world) {
	run := w.start(client.StartWorkflowOptions{}, Heartbeating)
	eventually("a heartbeat", func() bool {
		pending := w.describe(run).PendingActivities
		return len(pending) == 1 && pending[0].HeartbeatDetails != nil
	})
	check(w.client.CancelWorkflow(w, run.GetID(), ""))
	var cancelled *temporal.CanceledError
	if err := run.Get(w, nil); !errors.As(err, &cancelled) {
		panic(fmt.Sprintf("not cancelled but %v", err))
	}
	var details string
	check(cancelled.Details(&details))
	equal("what the activity left", details, "cleaned up")
	equal("the status", w.describe(run).WorkflowExecutionInfo.Status, enums.WORKFLOW_EXECUTION_STATUS_CANCELED)
}

func activitiesCompleteAsynchronously(w world) {
	run := w.start(client.StartWorkflowOptions{}, Handing)
	byToken, byID := <-w.activities.tokens, <-w.activities.tokens
	check(w.client.RecordActivityHeartbeat(w, byToken.task, "waiting"))
	check(w.client.CompleteActivity(w, byToken.task, "by token", nil))
	check(w.client.CompleteActivityByID(w, "default", byID.workflowID, byID.runID, byID.activityID, "by id", nil))
	equal("the result", result[string](w, run), "by id by token")
	var gone *serviceerror.NotFound
	if err := w.client.CompleteActivity(w, byToken.task, "again", nil); !errors.As(err, &gone) {
		panic(fmt.Sprintf("a second completion gives %v", err))
	}
}

func timersAndActivitiesAreCancelled(w world) {
	equal("the attempt", result[int32](w, w.start(client.StartWorkflowOptions{}, Cancelling)), 1)
}

func eagerActivitiesSaveATransition(w world) {
	for _, c := range []struct {
		eager       bool
		transitions int64
	}{{false, 7}, {true, 6}} {
		run := w.start(client.StartWorkflowOptions{}, OneActivity, 1, c.eager)
		equal("the length", result[int](w, run), 1)
		info := w.describe(run).WorkflowExecutionInfo
		equal("the status", info.Status, enums.WORKFLOW_EXECUTION_STATUS_COMPLETED)
		equal("the history's length", info.HistoryLength, 11)
		equal("the number of transitions", info.StateTransitionCount, c.transitions)
	}
}

func signalsAndQueries(w world) {
	options := client.StartWorkflowOptions{TaskQueue: sharedQueue}
	var run client.WorkflowRun
	var err error
	for _, added := range []int{1, 2} {
		run, err = w.client.SignalWithStartWorkflow(w, "go-accumulating", "add", added, options, Accumulating)
		check(err)
		options.ID = ""
	}
	equal("the sum so far", query[int](w, run, "sum"), 3)
	w.signal(run, "add", 4)
	equal("the sum right after a signal", query[int](w, run, "sum"), 7)
	w.signal(run, "add", 0)
	equal("the result", result[int](w, run), 7)
	equal("the sum of the closed run", query[int](w, run, "sum"), 7)
	_, err = w.client.QueryWorkflow(w, run.GetID(), "", "unknown")
	var failed *serviceerror.QueryFailed
	if !errors.As(err, &failed) {
		panic(fmt.Sprintf("an unknown query gives %v", err))
	}
}

func runsContinueAsNew(w world) {
	run := w.start(client.StartWorkflowOptions{}, CountingDown, 3)
	if before := result[string](w, run); before == "" || before == run.GetRunID() {
		panic("the last run does not name the one before it")
	}
	listed, err := w.client.ListWorkflow(w, &workflowservice.ListWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId = '%s'", run.GetID()),
	})
	check(err)
	equal("the number of runs", len(listed.Executions), 4)
}

func runsAreRetried(w world) {
	retry := &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 5}
	equal("the attempt", result[int32](w, w.start(client.StartWorkflowOptions{RetryPolicy: retry}, FailingTwice)), 3)
}

func runsFollowACronSchedule(w world) {
	run := w.start(client.StartWorkflowOptions{CronSchedule: "@every 1s"}, Returning)
	var second string
	eventually("the run after the first", func() bool {
		last := w.history(run)
		second = last[len(last)-1].GetWorkflowExecutionCompletedEventAttributes().GetNewExecutionRunId()
		return second != ""
	})
	eventually("its result", func() bool {
		last := w.history(w.client.GetWorkflow(w, run.GetID(), second))
		completed := last[len(last)-1].GetWorkflowExecutionCompletedEventAttributes()
		return completed != nil && string(completed.Result.Payloads[0].Data) == "true"
	})
	check(w.client.TerminateWorkflow(w, run.GetID(), "", "enough"))
}

func aStartIsDelayed(w world) {
	began := time.Now()
	run := w.start(client.StartWorkflowOptions{StartDelay: 700 * time.Millisecond}, OneActivity, 1, true)
	equal("the length", result[int](w, run), 1)
	if took := time.Since(began); took < 700*time.Millisecond {
		panic(fmt.Sprintf("it ended after %v", took))
	}
}

func aStartIsEager(w world) {
	run := w.start(client.StartWorkflowOptions{EnableEagerStart: true}, OneActivity, 1, true)
	equal("the length", result[int](w, run), 1)
	started := w.history(run)[0].GetWorkflowExecutionStartedEventAttributes()
	equal("whether the server agreed", started.EagerExecutionAccepted, true)
}

func memoAndSearchAttributes(w world) {
	run := w.start(client.StartWorkflowOptions{
		Memo:                  map[string]any{"note": "before", "gone": "soon"},
		TypedSearchAttributes: temporal.NewSearchAttributes(interopKeyword.ValueSet("given"), interopInt.ValueSet(7)),
	}, Describing)
	check(run.Get(w, nil))
	info := w.describe(run).WorkflowExecutionInfo
	equal("the number of notes", len(info.Memo.Fields), 1)
	var note, keyword string
	check(converter.GetDefaultDataConverter().FromPayload(info.Memo.Fields["note"], &note))
	check(converter.GetDefaultDataConverter().FromPayload(info.SearchAttributes.IndexedFields["InteropKeyword"], &keyword))
	equal("the note", note, "after")
	equal("the keyword", keyword, "changed")
	if _, found := info.SearchAttributes.IndexedFields["InteropInt"]; found {
		panic("the number is still set")
	}
	count, err := w.client.CountWorkflow(w, &workflowservice.CountWorkflowExecutionsRequest{
		Query: fmt.Sprintf("WorkflowId = '%s' AND ExecutionStatus = 'Completed'", run.GetID()),
	})
	check(err)
	equal("the count", count.Count, 1)
}

func summaryAndPriority(w world) {
	run := w.start(client.StartWorkflowOptions{
		StaticSummary: "an order",
		Priority:      temporal.Priority{PriorityKey: 2, FairnessKey: "tenant"},
	}, Prioritized)
	priority := result[temporal.Priority](w, run)
	equal("the activity's priority", priority, temporal.Priority{PriorityKey: 4, FairnessKey: "tenant"})
	told, err := w.client.DescribeWorkflow(w, run.GetID(), "")
	check(err)
	summary, err := told.GetStaticSummary()
	check(err)
	equal("the summary", summary, "an order")
}

func idsAreReusedByPolicy(w world) {
	options := client.StartWorkflowOptions{ID: "go-ids", WorkflowExecutionErrorWhenAlreadyStarted: true}
	first := w.start(options, Accumulating)
	options.WorkflowIDConflictPolicy = enums.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING
	equal("the run", w.start(options, Accumulating).GetRunID(), first.GetRunID())
	options.WorkflowIDConflictPolicy = enums.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
	second := w.start(options, Accumulating)
	equal("the first run's status", w.describe(first).WorkflowExecutionInfo.Status, enums.WORKFLOW_EXECUTION_STATUS_TERMINATED)
	w.signal(second, "add", 0)
	equal("the sum", result[int](w, second), 0)
	options.WorkflowIDConflictPolicy = enums.WORKFLOW_ID_CONFLICT_POLICY_UNSPECIFIED
	options.WorkflowIDReusePolicy = enums.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
	options.TaskQueue = sharedQueue
	_, err := w.client.ExecuteWorkflow(w, options, Accumulating)
	var taken *serviceerror.WorkflowExecutionAlreadyStarted
	if !errors.As(err, &taken) {
		panic(fmt.Sprintf("a start under a used id gives %v", err))
	}
	equal("the run that has the id", taken.RunId, second.GetRunID())
}

func aRunIsTerminated(w world) {
	run := w.start(client.StartWorkflowOptions{}, Accumulating)
	check(w.client.TerminateWorkflow(w, run.GetID(), run.GetRunID(), "not wanted", "details"))
	var terminated *temporal.TerminatedError
	if err := run.Get(w, nil); !errors.As(err, &terminated) {
		panic(fmt.Sprintf("not terminated but %v", err))
	}
	var closed *serviceerror.NotFound
	if err := w.client.SignalWorkflow(w, run.GetID(), run.GetRunID(), "add", 1); !errors.As(err, &closed) {
		panic(fmt.Sprintf("a signal to a closed run gives %v", err))
	}
}

func markersAreReplayed(w world) {
	first := w.worker("go-marking", worker.Options{})
	check(first.Start())
	run := w.start(client.StartWorkflowOptions{TaskQueue: "go-marking"}, Marking)
	var recorded string
	eventually("the markers", func() bool {
		recorded = query[string](w, run, "recorded")
		return recorded != ""
	})
	first.Stop()
	second := w.worker("go-marking", worker.Options{})
	check(second.Start())
	defer second.Stop()
	equal("what was replayed", query[string](w, run, "recorded"), recorded)
	w.signal(run, "end", nil)
	equal("the result", result[string](w, run), recorded)
	if !strings.HasPrefix(recorded, "2 4 ") {
		panic("the markers hold " + recorded)
	}
}

func anotherWorkerTakesOver(w world) {
	first := w.worker("go-takeover", worker.Options{})
	check(first.Start())
	run := w.start(client.StartWorkflowOptions{TaskQueue: "go-takeover"}, Accumulating)
	w.signal(run, "add", 5)
	equal("the sum", query[int](w, run, "sum"), 5)
	first.Stop()
	w.signal(run, "add", 0)
	second := w.worker("go-takeover", worker.Options{})
	check(second.Start())
	defer second.Stop()
	equal("the result", result[int](w, run), 5)
	// A task left in the first worker's own queue would have timed out there.
	for _, event := range w.history(run) {
		if event.EventType == enums.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT {
			panic("a task waited for the worker that had stopped")
		}
	}
}

func aLongHistoryComesInPages(w world) {
	const signals, size = 30, 300_000
	run := w.start(client.StartWorkflowOptions{TaskQueue: "go-long"}, Reading, signals)
	for range signals {
		w.signal(run, "text", strings.Repeat("y", size))
	}
	long := w.worker("go-long", worker.Options{})
	check(long.Start())
	defer long.Stop()
	equal("the number of bytes", result[int](w, run), signals*size)
	events := w.history(run)
	last := events[len(events)-1]
	equal("the last event", last.EventType, enums.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED)
	equal("its id", last.EventId, int64(len(events)))
	page, err := w.client.WorkflowService().GetWorkflowExecutionHistoryReverse(w,
		&workflowservice.GetWorkflowExecutionHistoryReverseRequest{
			Namespace:       "default",
			Execution:       &common.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()},
			MaximumPageSize: 2,
		})
	check(err)
	equal("the first event of the reverse history", page.History.Events[0].EventId, last.EventId)
	short := w.start(client.StartWorkflowOptions{TaskQueue: "go-long"}, OneActivity, 1_500_000, false)
	equal("the length of a large result", result[int](w, short), 1_500_000)
}

func workersHaveRoles(w world) {
	var workers []worker.Worker
	for _, options := range []worker.Options{{DisableWorkflowWorker: true}, {LocalActivityWorkerOnly: true}} {
		one := w.worker("go-roles", options)
		check(one.Start())
		workers = append(workers, one)
	}
	run := w.start(client.StartWorkflowOptions{TaskQueue: "go-roles"}, Retried)
	equal("the attempt", result[int32](w, run), 3)
	for _, one := range workers {
		one.Stop()
	}
}

func anIdleWorkerStopsAtOnce(w world) {
	idle := w.worker("go-idle", worker.Options{WorkerStopTimeout: 2 * patience})
	check(idle.Start())
	eventually("its polls", func() bool {
		told, err := w.client.DescribeTaskQueue(w, "go-idle", enums.TASK_QUEUE_TYPE_ACTIVITY)
		check(err)
		return len(told.Pollers) == 1
	})
	began := time.Now()
	idle.Stop()
	if took := time.Since(began); took > patience/2 {
		panic(fmt.Sprintf("it took %v", took))
	}
}

func theSDKStartsTheServer(w world) {
	server, err := testsuite.StartDevServer(w, testsuite.DevServerOptions{
		ExistingPath:  w.executable,
		ClientOptions: &client.Options{Namespace: "made-for-go"},
		LogLevel:      "error",
		ExtraArgs:     []string{"--search-attribute", "InteropKeyword=Keyword"},
	})
	check(err)
	defer func() { check(server.Stop()) }()
	only := newWorker(server.Client(), "go-own", w.activities, worker.Options{})
	check(only.Start())
	defer only.Stop()
	run, err := server.Client().ExecuteWorkflow(w, client.StartWorkflowOptions{TaskQueue: "go-own"}, Retried)
	check(err)
	equal("the attempt", result[int32](w, run), 3)
}
