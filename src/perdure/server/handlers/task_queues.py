"""DescribeTaskQueue: who polls a queue, how much waits in it and how fast it moves.

There is one shape per age of the protocol: the present one asks about one type of queue, the enhanced mode about
several at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from temporalio.api.enums.v1 import BuildIdTaskReachability, DescribeTaskQueueMode, TaskQueueKind, TaskQueueType
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueueStats, TaskQueueStatus
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest, DescribeTaskQueueResponse

from perdure.server.core.durations import duration_of, set_time
from perdure.server.core.errors import InvalidArgument
from perdure.server.engine.matching.task_queue import QueueKey, QueueKind
from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_task_queue
from perdure.server.handlers.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.server.engine.matching import BacklogStats
    from perdure.server.engine.matching import PollerInfo as SeenPoller

_ENHANCED: Final = DescribeTaskQueueMode.DESCRIBE_TASK_QUEUE_MODE_ENHANCED
_WORKFLOW: Final = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
_ACTIVITY: Final = TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
_KINDS: Final = {
    _WORKFLOW: QueueKind.WORKFLOW,
    _ACTIVITY: QueueKind.ACTIVITY,
    TaskQueueType.TASK_QUEUE_TYPE_NEXUS: QueueKind.NEXUS,
}
_DEFAULT_PRIORITY: Final = 3
"""The one group of tasks there is: priorities do not change their order yet."""
_REACHABLE: Final = BuildIdTaskReachability.BUILD_ID_TASK_REACHABILITY_REACHABLE


async def describe_task_queue(
    server: Server, request: DescribeTaskQueueRequest, call: Call
) -> DescribeTaskQueueResponse:
    """Return a queue's pollers and, where asked for, its backlog and rates."""
    namespace = server.namespaces.resolve(request.namespace)
    check_task_queue(request.HasField("task_queue"), request.task_queue, server.limits)
    if request.api_mode != _ENHANCED:
        return await _describe_one_type(server, namespace.namespace_id, request)
    if request.task_queue.kind == TaskQueueKind.TASK_QUEUE_KIND_STICKY:
        raise InvalidArgument(
            "Enhanced DescribeTaskQueue is not valid for a sticky queue, use api_mode=UNSPECIFIED or a normal queue."
        )
    return await _describe_types(server, namespace.namespace_id, request)


async def _describe_one_type(
    server: Server, namespace_id: str, request: DescribeTaskQueueRequest
) -> DescribeTaskQueueResponse:
    key = _key(namespace_id, request.task_queue.name, request.task_queue_type or _WORKFLOW)
    response = DescribeTaskQueueResponse(pollers=_shown(await server.engine.task_queue_pollers(key)))
    if request.report_stats or request.include_task_queue_status:
        backlog = await server.engine.task_queue_backlog(key)
        if request.report_stats:
            response.stats.CopyFrom(_stats(backlog))
            response.stats_by_priority_key[_DEFAULT_PRIORITY].CopyFrom(response.stats)
        if request.include_task_queue_status:
            status = TaskQueueStatus(backlog_count_hint=backlog.approximate_backlog_count)
            response.task_queue_status.CopyFrom(status)
    return response


async def _describe_types(
    server: Server, namespace_id: str, request: DescribeTaskQueueRequest
) -> DescribeTaskQueueResponse:
    response = DescribeTaskQueueResponse()
    # No worker is versioned, so everything is reported under the one version without a name.
    version = response.versions_info[""]
    if request.report_task_reachability:
        version.task_reachability = _REACHABLE
    for queue_type in request.task_queue_types or (_WORKFLOW, _ACTIVITY):
        key = _key(namespace_id, request.task_queue.name, queue_type)
        info = version.types_info[queue_type]
        if request.report_pollers:
            info.pollers.extend(_shown(await server.engine.task_queue_pollers(key)))
        if request.report_stats:
            info.stats.CopyFrom(_stats(await server.engine.task_queue_backlog(key)))
    return response


def _key(namespace_id: str, name: str, queue_type: TaskQueueType.ValueType) -> QueueKey:
    kind = _KINDS.get(queue_type)
    if kind is None:
        raise InvalidArgument("TaskQueueType is not known.")
    return QueueKey(namespace_id, name, kind)


def _shown(pollers: Sequence[SeenPoller]) -> list[PollerInfo]:
    shown = []
    for poller, last_access_at in pollers:
        info = PollerInfo(identity=poller.identity, rate_per_second=poller.rate_per_second)
        set_time(info.last_access_time, last_access_at)
        if poller.worker_version_capabilities is not None:
            info.worker_version_capabilities.CopyFrom(poller.worker_version_capabilities)
        if poller.deployment_options is not None:
            info.deployment_options.CopyFrom(poller.deployment_options)
        shown.append(info)
    return shown


def _stats(backlog: BacklogStats) -> TaskQueueStats:
    return TaskQueueStats(
        approximate_backlog_count=backlog.approximate_backlog_count,
        approximate_backlog_age=duration_of(int(backlog.approximate_backlog_age_seconds * 1e9)),
        tasks_add_rate=backlog.tasks_add_rate,
        tasks_dispatch_rate=backlog.tasks_dispatch_rate,
    )
