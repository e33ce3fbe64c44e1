package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// A token is what someone else needs to complete an activity.
type token struct {
	task       []byte
	workflowID string
	runID      string
	activityID string
}

type activities struct{ tokens chan token }

// SucceedAt fails until a given attempt, and returns the number of the attempt.
func (*activities) SucceedAt(ctx context.Context, attempt int32) (int32, error) {
	if now := activity.GetInfo(ctx).Attempt; now < attempt {
		return 0, temporal.NewApplicationError("not yet", "NotYet")
	}
	return attempt, nil
}

// Sleep does nothing for a while, and does not heartbeat.
func (*activities) Sleep(ctx context.Context, milliseconds int) error {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	}
	return nil
}

// Heartbeat heartbeats until it is cancelled.
func (*activities) Heartbeat(ctx context.Context) error {
	for count := 1; ; count++ {
		activity.RecordHeartbeat(ctx, count)
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.Canceled) {
				return errors.New("not cancelled but " + ctx.Err().Error())
			}
			return temporal.NewCanceledError("cleaned up")
		case <-activity.GetWorkerStopChannel(ctx):
			return errors.New("the worker stops")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Hand leaves its completion to someone else.
func (a *activities) Hand(ctx context.Context) (string, error) {
	info := activity.GetInfo(ctx)
	a.tokens <- token{info.TaskToken, info.WorkflowExecution.ID, info.WorkflowExecution.RunID, info.ActivityID}
	return "", activity.ErrResultPending
}

// Text returns a long text.
func (*activities) Text(_ context.Context, length int) (string, error) {
	return strings.Repeat("x", length), nil
}

// Priority returns the priority it was given.
func (*activities) Priority(ctx context.Context) (temporal.Priority, error) {
	return activity.GetInfo(ctx).Priority, nil
}
