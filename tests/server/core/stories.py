"""Where tests begin: runs that have come to a certain point."""

from __future__ import annotations

from perdure.server.core.limits import Limits
from tests.server.core.commands import start_timer
from tests.server.core.story import Story

STARTED = ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]
DECIDED = [*STARTED, "WorkflowTaskStarted", "WorkflowTaskCompleted"]


def started_story(**limits: int) -> Story:
    """A run that was just started, under these limits."""
    story = Story(limits=Limits(**limits) if limits else None)
    story.start()
    return story


def failing_story(attempts: int = 1) -> Story:
    """A run whose workflow task has failed so often."""
    story = started_story()
    for _ in range(attempts):
        story.fail(story.poll())
    return story


def idle_story() -> Story:
    """A run that has started the long timer `t` and waits."""
    story = started_story()
    story.decide(start_timer("t", 1_000))
    return story


def sticky_story(timeout: float = 5) -> Story:
    """The same, kept in the cache of its worker."""
    story = started_story()
    story.complete(story.poll(), start_timer("t", 1_000), sticky=True, sticky_timeout=timeout)
    return story
