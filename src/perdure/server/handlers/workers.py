"""ShutdownWorker: a worker says that it stops."""

from __future__ import annotations

from temporalio.api.workflowservice.v1 import ShutdownWorkerRequest, ShutdownWorkerResponse

from perdure.server.handlers.call import Call
from perdure.server.handlers.fields import check_text
from perdure.server.handlers.server import Server


async def shutdown_worker(server: Server, request: ShutdownWorkerRequest, call: Call) -> ShutdownWorkerResponse:
    """End the worker's outstanding polls empty, so that none of them takes a task nobody will work on."""
    namespace = server.namespaces.resolve(request.namespace)
    check_text("Identity", request.identity, server.limits)
    await server.engine.shutdown_worker(namespace.namespace_id, request)
    return ShutdownWorkerResponse()
