"""A command that may not be carried out: it fails the workflow task, or ends the run.

Its message is told three times: in the WorkflowTaskFailed event, in the answer to the worker, and as the reason of the
termination if it ends the run.
"""

from __future__ import annotations

from temporalio.api.enums.v1 import WorkflowTaskFailedCause

_PREFIX = "WORKFLOW_TASK_FAILED_CAUSE_"


class BadCommand(Exception):
    """A worker's command that may not be carried out.

    Args:
        cause: The cause recorded in the WorkflowTaskFailed event.
        reason: What is wrong; empty where the cause says it all.
        terminate: Whether the run is terminated as well, since the same command would come again and again.
    """

    def __init__(self, cause: WorkflowTaskFailedCause.ValueType, reason: str = "", *, terminate: bool = False) -> None:
        super().__init__(reason)
        self.cause = cause
        self.reason = reason
        self.terminate = terminate

    @property
    def message(self) -> str:
        """The cause's short name and the reason, as everybody is told."""
        name = cause_name(self.cause)
        return f"{name}: {self.reason}" if self.reason else name

    def __str__(self) -> str:
        return self.message


def cause_name(cause: WorkflowTaskFailedCause.ValueType) -> str:
    """Return the short name of a cause, as in `BadStartTimerAttributes`."""
    words = WorkflowTaskFailedCause.Name(cause).removeprefix(_PREFIX).split("_")
    return "".join(word.capitalize() for word in words)
