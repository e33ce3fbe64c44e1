// A program of the Go SDK that does what users of a server do, and says of each thing whether it went well.
//
// Usage: program ADDRESS EXECUTABLE. It prints a line for each scenario, "ok NAME" or "failed NAME: WHY". It knows
// nothing of the server but its address; EXECUTABLE is what StartDevServer is to start.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
)

const (
	sharedQueue = "go-shared"
	// How long a busy machine may take for a thing.
	patience = 20 * time.Second
)

// A world is what the scenarios share.
type world struct {
	context.Context
	client     client.Client
	activities *activities
	executable string
}

var scenarios = []struct {
	name string
	run  func(world)
}{
	{"activities are retried", activitiesAreRetried},
	{"activities time out", activitiesTimeOut},
	{"cancellation reaches an activity that heartbeats", cancellationReachesAnActivity},
	{"activities complete asynchronously", activitiesCompleteAsynchronously},
	{"timers and activities are cancelled", timersAndActivitiesAreCancelled},
	{"eager activities save a transition", eagerActivitiesSaveATransition},
	{"signals and queries", signalsAndQueries},
	{"markers are replayed", markersAreReplayed},
	{"runs continue as new", runsContinueAsNew},
	{"runs are retried", runsAreRetried},
	{"runs follow a cron schedule", runsFollowACronSchedule},
	{"a start is delayed", aStartIsDelayed},
	{"a start is eager", aStartIsEager},
	{"memo and search attributes", memoAndSearchAttributes},
	{"summary and priority", summaryAndPriority},
	{"ids are reused by policy", idsAreReusedByPolicy},
	{"a run is terminated", aRunIsTerminated},
	{"another worker takes over", anotherWorkerTakesOver},
	{"a long history comes in pages", aLongHistoryComesInPages},
	{"workers have roles", workersHaveRoles},
	{"an idle worker stops at once", anIdleWorkerStopsAtOnce},
	{"the SDK starts the server itself", theSDKStartsTheServer},
}

func main() {
	quiet := sdklog.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	connected, err := client.Dial(client.Options{HostPort: os.Args[1], Logger: quiet})
	check(err)
	defer connected.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	w := world{ctx, connected, &activities{tokens: make(chan token, 2)}, os.Args[2]}

	shared := w.worker(sharedQueue, worker.Options{MaxHeartbeatThrottleInterval: 50 * time.Millisecond})
	check(shared.Start())
	defer shared.Stop()

	var all sync.WaitGroup
	for _, scenario := range scenarios {
		all.Go(func() { fmt.Println(outcome(scenario.name, func() { scenario.run(w) })) })
	}
	all.Wait()
}

// outcome runs a scenario and says in one line how it went.
func outcome(name string, run func()) (line string) {
	defer func() {
		if why := recover(); why != nil {
			line = fmt.Sprintf("failed %s: %v", name, why)
		}
	}()
	run()
	return "ok " + name
}

// worker makes a worker that knows every workflow and activity of this program, as far as its options allow.
func (w world) worker(queue string, options worker.Options) worker.Worker {
	return newWorker(w.client, queue, w.activities, options)
}

func newWorker(c client.Client, queue string, known *activities, options worker.Options) worker.Worker {
	made := worker.New(c, queue, options)
	if !options.DisableWorkflowWorker {
		registerWorkflows(made)
	}
	if !options.LocalActivityWorkerOnly {
		made.RegisterActivity(known)
	}
	return made
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func equal[T comparable](what string, got, want T) {
	if got != want {
		panic(fmt.Sprintf("%s is %v, not %v", what, got, want))
	}
}

// eventually looks again and again until there is something to see.
func eventually(what string, look func() bool) {
	for deadline := time.Now().Add(patience); !look(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic("never seen: " + what)
		}
	}
}
