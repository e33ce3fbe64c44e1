"""What Nexus workers call. Operations are not built: a worker's poll waits like any other and ends empty."""

from __future__ import annotations

from temporalio.api.workflowservice.v1 import PollNexusTaskQueueRequest, PollNexusTaskQueueResponse

from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_task_queue, check_text
from perdure.server.handlers.long_poll import TASK_POLL_SECONDS, poll_deadline
from perdure.server.handlers.server import Server


async def poll_nexus_task_queue(
    server: Server, request: PollNexusTaskQueueRequest, call: Call
) -> PollNexusTaskQueueResponse:
    """Wait for a Nexus task; an empty reply means there was none in time."""
    namespace = server.namespaces.resolve(request.namespace)
    check_task_queue(request.HasField("task_queue"), request.task_queue, server.limits)
    check_text("Identity", request.identity, server.limits)
    deadline = poll_deadline(call, TASK_POLL_SECONDS)
    return await server.engine.poll_nexus_task(namespace.namespace_id, request, deadline)
