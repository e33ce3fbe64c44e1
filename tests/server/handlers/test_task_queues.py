"""DescribeTaskQueue in its two modes."""

from __future__ import annotations

import pytest
from temporalio.api.enums.v1 import BuildIdTaskReachability, DescribeTaskQueueMode, TaskQueueKind, TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest

from perdure.server.core.errors import InvalidArgument
from perdure.server.engine.matching.matcher import BacklogStats
from perdure.server.engine.matching.poller_history import Poller, PollerInfo
from perdure.server.engine.matching.task_queue import QueueKey, QueueKind
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.task_queues import describe_task_queue
from tests.server.handlers.serving import NOW, Served, serve

CALL = DirectCall()
NEXUS = TaskQueueType.TASK_QUEUE_TYPE_NEXUS
REACHABLE = BuildIdTaskReachability.BUILD_ID_TASK_REACHABILITY_REACHABLE
ENHANCED = DescribeTaskQueueMode.DESCRIBE_TASK_QUEUE_MODE_ENHANCED
ACTIVITY = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
WORKFLOW = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW


async def serve_queue() -> Served:
    served = await serve()
    key = QueueKey("default-id", "q", QueueKind.ACTIVITY)
    served.engine.queues.known_pollers[key] = [PollerInfo(Poller("me", rate_per_second=5.0), NOW)]
    served.engine.queues.known_backlogs[key] = BacklogStats(3, 1.5, 0.25, 0.5)
    return served


async def test_one_type_has_pollers_and_what_is_asked_for() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name="q"), task_queue_type=ACTIVITY, report_stats=True
    )
    told = await describe_task_queue(served.server, request, CALL)
    (poller,) = told.pollers
    assert (poller.identity, poller.rate_per_second) == ("me", 5.0)
    assert poller.last_access_time.ToNanoseconds() == NOW
    assert told.stats.approximate_backlog_count == 3
    assert told.stats.approximate_backlog_age.ToMilliseconds() == 1500
    assert (told.stats.tasks_add_rate, told.stats.tasks_dispatch_rate) == (0.25, 0.5)
    assert told.stats_by_priority_key == {3: told.stats}
    assert not told.HasField("task_queue_status")


async def test_the_old_status_tells_the_backlog() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name="q"), task_queue_type=ACTIVITY, include_task_queue_status=True
    )
    told = await describe_task_queue(served.server, request, CALL)
    assert told.task_queue_status.backlog_count_hint == 3
    assert not told.HasField("stats")


async def test_without_a_type_it_is_about_workflow_tasks() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"))
    assert list((await describe_task_queue(served.server, request, CALL)).pollers) == []


async def test_the_enhanced_mode_tells_several_types_at_once() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name="q"), api_mode=ENHANCED, report_stats=True, report_pollers=True
    )
    types = (await describe_task_queue(served.server, request, CALL)).versions_info[""].types_info
    assert set(types) == {WORKFLOW, ACTIVITY}
    assert types[ACTIVITY].stats.approximate_backlog_count == 3
    assert [poller.identity for poller in types[ACTIVITY].pollers] == ["me"]
    assert types[WORKFLOW].stats.approximate_backlog_count == 0


async def test_the_enhanced_mode_is_not_for_sticky_queues() -> None:
    served = await serve_queue()
    sticky = TaskQueue(name="q", kind=TaskQueueKind.TASK_QUEUE_KIND_STICKY)
    request = DescribeTaskQueueRequest(namespace="default", task_queue=sticky, api_mode=ENHANCED)
    with pytest.raises(InvalidArgument, match="not valid for a sticky queue"):
        await describe_task_queue(served.server, request, CALL)


async def test_nexus_workers_are_told_of_too() -> None:
    served = await serve_queue()
    key = QueueKey("default-id", "q", QueueKind.NEXUS)
    served.engine.queues.known_pollers[key] = [PollerInfo(Poller("nexus worker"), NOW)]
    one = DescribeTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"), task_queue_type=NEXUS)
    told = await describe_task_queue(served.server, one, CALL)
    assert [poller.identity for poller in told.pollers] == ["nexus worker"]
    several = DescribeTaskQueueRequest(
        namespace="default",
        task_queue=TaskQueue(name="q"),
        api_mode=ENHANCED,
        task_queue_types=[NEXUS],
        report_pollers=True,
        report_stats=True,
    )
    types = (await describe_task_queue(served.server, several, CALL)).versions_info[""].types_info
    assert [poller.identity for poller in types[NEXUS].pollers] == ["nexus worker"]
    assert types[NEXUS].stats.approximate_backlog_count == 0


async def test_an_unknown_type_of_queue_is_refused() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="q"))
    request.task_queue_type = 9  # type: ignore[assignment]  # that is the point
    with pytest.raises(InvalidArgument):
        await describe_task_queue(served.server, request, CALL)


async def test_unversioned_workers_can_be_reached() -> None:
    served = await serve_queue()
    request = DescribeTaskQueueRequest(
        namespace="default", task_queue=TaskQueue(name="q"), api_mode=ENHANCED, report_task_reachability=True
    )
    told = await describe_task_queue(served.server, request, CALL)
    assert told.versions_info[""].task_reachability == REACHABLE
