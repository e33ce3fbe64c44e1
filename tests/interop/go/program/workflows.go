package main

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

var known *activities

var (
	interopKeyword = temporal.NewSearchAttributeKeyKeyword("InteropKeyword")
	interopInt     = temporal.NewSearchAttributeKeyInt64("InteropInt")
)

func registerWorkflows(w worker.Worker) {
	for _, definition := range []any{
		Retried, TimingOut, Heartbeating, Handing, Cancelling, OneActivity, Accumulating, Marking, CountingDown,
		FailingTwice, Returning, Describing, Prioritized, Reading,
	} {
		w.RegisterWorkflow(definition)
	}
}

func withTimeout(ctx workflow.Context, timeout time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: timeout,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	})
}

// Retried returns at which attempt its activity succeeded.
func Retried(ctx workflow.Context) (attempt int32, err error) {
	err = workflow.ExecuteActivity(withTimeout(ctx, 5*time.Second), known.SucceedAt, 3).Get(ctx, &attempt)
	return attempt, err
}

// TimingOut lets an activity run into each of the four timeouts, and returns their types.
func TimingOut(ctx workflow.Context) ([]string, error) {
	short := 200 * time.Millisecond
	once := &temporal.RetryPolicy{MaximumAttempts: 1}
	var running []workflow.Future
	for _, options := range []workflow.ActivityOptions{
		{StartToCloseTimeout: short, RetryPolicy: once},
		{StartToCloseTimeout: 10 * time.Second, HeartbeatTimeout: short, RetryPolicy: once},
		{StartToCloseTimeout: 10 * time.Second, ScheduleToStartTimeout: short, TaskQueue: "nobody"},
		{ScheduleToCloseTimeout: 10 * short, RetryPolicy: once},
	} {
		running = append(running, workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), known.Sleep, 5000))
	}
	var types []string
	for _, future := range running {
		var timeout *temporal.TimeoutError
		if err := future.Get(ctx, nil); !errors.As(err, &timeout) {
			return nil, fmt.Errorf("no timeout but %v", err)
		}
		types = append(types, timeout.TimeoutType().String())
	}
	return types, nil
}

// Heartbeating ends when the activity that heartbeats has cleaned up.
func Heartbeating(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 30 * time.Second,
		HeartbeatTimeout:    10 * time.Second,
		WaitForCancellation: true,
	})
	return workflow.ExecuteActivity(ctx, known.Heartbeat).Get(ctx, nil)
}

// Handing has two activities that others complete.
func Handing(ctx workflow.Context) (string, error) {
	ctx = withTimeout(ctx, 10*time.Second)
	first, second := workflow.ExecuteActivity(ctx, known.Hand), workflow.ExecuteActivity(ctx, known.Hand)
	var one, two string
	if err := first.Get(ctx, &one); err != nil {
		return "", err
	}
	err := second.Get(ctx, &two)
	return min(one, two) + " " + max(one, two), err
}

// Cancelling cancels a timer, and an activity in the very task that schedules it and another one.
func Cancelling(ctx workflow.Context) (attempt int32, err error) {
	cancellable, cancel := workflow.WithCancel(withTimeout(ctx, 5*time.Second))
	timer := workflow.NewTimer(cancellable, time.Hour)
	if err := workflow.Sleep(ctx, 50*time.Millisecond); err != nil {
		return 0, err
	}
	unwanted := workflow.ExecuteActivity(cancellable, known.Sleep, 1)
	cancel()
	err = workflow.ExecuteActivity(withTimeout(ctx, 5*time.Second), known.SucceedAt, 1).Get(ctx, &attempt)
	for _, future := range []workflow.Future{timer, unwanted} {
		if ended := future.Get(ctx, nil); !temporal.IsCanceledError(ended) {
			return 0, fmt.Errorf("not cancelled but %v", ended)
		}
	}
	return attempt, err
}

// OneActivity runs one activity, without asking for it eagerly unless told to, and returns its text's length.
func OneActivity(ctx workflow.Context, length int, eager bool) (int, error) {
	options := workflow.ActivityOptions{StartToCloseTimeout: 5 * time.Second, DisableEagerExecution: !eager}
	var text string
	err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), known.Text, length).Get(ctx, &text)
	return len(text), err
}

// Accumulating sums what it is signalled until it gets a zero.
func Accumulating(ctx workflow.Context) (int, error) {
	sum := 0
	if err := workflow.SetQueryHandler(ctx, "sum", func() (int, error) { return sum, nil }); err != nil {
		return 0, err
	}
	for added := 1; added != 0; sum += added {
		workflow.GetSignalChannel(ctx, "add").Receive(ctx, &added)
	}
	return sum, nil
}

// Marking records a marker of every kind, then waits for a signal, so that they can be replayed.
func Marking(ctx workflow.Context) (recorded string, err error) {
	if err := workflow.SetQueryHandler(ctx, "recorded", func() (string, error) { return recorded, nil }); err != nil {
		return "", err
	}
	local := workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{
		ScheduleToCloseTimeout: 5 * time.Second,
		RetryPolicy:            &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond},
	})
	var attempt int32
	if err := workflow.ExecuteLocalActivity(local, known.SucceedAt, int32(2)).Get(ctx, &attempt); err != nil {
		return "", err
	}
	var random, level int64
	now := func(workflow.Context) any { return time.Now().UnixNano() }
	if err := workflow.SideEffect(ctx, now).Get(&random); err != nil {
		return "", err
	}
	same := func(before, after any) bool { return true }
	if err := workflow.MutableSideEffect(ctx, "level", now, same).Get(&level); err != nil {
		return "", err
	}
	version := workflow.GetVersion(ctx, "change", workflow.DefaultVersion, 4)
	recorded = fmt.Sprint(attempt, " ", version, " ", random, " ", level)
	workflow.GetSignalChannel(ctx, "end").Receive(ctx, nil)
	return recorded, nil
}

// CountingDown continues as new until it has come to 0.
func CountingDown(ctx workflow.Context, from int) (string, error) {
	if from > 0 {
		return "", workflow.NewContinueAsNewError(ctx, CountingDown, from-1)
	}
	return workflow.GetInfo(ctx).ContinuedExecutionRunID, nil
}

// FailingTwice succeeds as the third run of its chain.
func FailingTwice(ctx workflow.Context) (int32, error) {
	attempt := workflow.GetInfo(ctx).Attempt
	if attempt < 3 {
		return 0, errors.New("not yet")
	}
	return attempt, nil
}

// Returning returns whether an earlier run of its cron schedule left it a result.
func Returning(ctx workflow.Context) (bool, error) { return workflow.HasLastCompletionResult(ctx), nil }

// Describing changes its memo and its search attributes.
func Describing(ctx workflow.Context) error {
	if err := workflow.UpsertMemo(ctx, map[string]any{"note": "after", "gone": nil}); err != nil {
		return err
	}
	return workflow.UpsertTypedSearchAttributes(ctx, interopKeyword.ValueSet("changed"), interopInt.ValueUnset())
}

// Prioritized returns the priority of an activity that sets only a part of its own.
func Prioritized(ctx workflow.Context) (priority temporal.Priority, err error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 5 * time.Second,
		Priority:            temporal.Priority{PriorityKey: 4},
		// Temporal's server lets the two parts meet only on the way through a task queue.
		DisableEagerExecution: true,
	})
	err = workflow.ExecuteActivity(ctx, known.Priority).Get(ctx, &priority)
	return priority, err
}

// Reading returns how many bytes its signals had.
func Reading(ctx workflow.Context, signals int) (int, error) {
	bytes := 0
	for range signals {
		var text string
		workflow.GetSignalChannel(ctx, "text").Receive(ctx, &text)
		bytes += len(text)
	}
	return bytes, nil
}
