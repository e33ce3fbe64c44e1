"""What a worker says of its version when it polls or answers.

The server stores the build id with the completed task; it does not route tasks by it. A worker that asks for routing
is refused, because it would otherwise get tasks that are not for it.
"""

from __future__ import annotations

from typing import Final, Protocol

from temporalio.api.deployment.v1 import WorkerDeploymentOptions
from temporalio.api.enums.v1 import WorkerVersioningMode
from temporalio.api.taskqueue.v1 import TaskQueue

from perdure.server.core.checks.names import byte_length
from perdure.server.core.errors import InvalidArgument, PermissionDenied

_BUILD_ID_LENGTH: Final = 255
_VERSIONED = WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED


class BuildIdClaim(Protocol):
    """What the two older forms of a worker's version have in common."""

    @property
    def build_id(self) -> str:
        """The worker's build id."""

    @property
    def use_versioning(self) -> bool:
        """Whether the worker wants tasks routed by it."""


def check_worker_version(claim: BuildIdClaim, options: WorkerDeploymentOptions, task_queue: TaskQueue) -> None:
    """Refuse a worker that wants its tasks routed by version, and an over-long build id."""
    if max(byte_length(claim.build_id), byte_length(options.build_id)) > _BUILD_ID_LENGTH:
        raise InvalidArgument("Build ID exceeds configured limit.workerBuildIdSize, use a shorter build ID.")
    if claim.use_versioning or options.worker_versioning_mode == _VERSIONED:
        raise PermissionDenied(
            f"Worker versioning is not implemented by this server: the worker of {task_queue.name} "
            "must run unversioned."
        )
