"""Being woken: by an alarm, or after the process forgot what it had offered.

An alarm may be early; what is due is found by looking. The stored alarm is raised here only, when it has fired.
"""

from __future__ import annotations

import heapq

from perdure.server.core import registry
from perdure.server.core.inputs import AlarmDue, ResumeOffers
from perdure.server.core.machines import activity, workflow_task
from perdure.server.core.registry import alarm_rules
from perdure.server.core.transition import Transition


@registry.handles(AlarmDue)
def _ring(t: Transition, alarm: AlarmDue) -> None:
    run = t.run
    run.told_alarm_at = -1
    while (due := run.first_alarm()) is not None and due <= t.now and not run.changes.deleted:
        _, kind, key = heapq.heappop(run.alarms)
        alarm_rules[kind].fire(t, key)
        run.arm(kind, key)
    if run.alarm_at is not None and run.alarm_at <= t.now:
        if run.task.is_held:
            # The row is written as if the task were ready, whose own alarm is over: so its start is written too.
            t.touch()
        run.alarm_at = run.first_alarm()
        t.touch_row()


@registry.handles(ResumeOffers)
def _resume(t: Transition, resume: ResumeOffers) -> None:
    run = t.run
    run.told_alarm_at = -1
    if run.task.state is workflow_task.State.SCHEDULED:
        t.effects.append(workflow_task.ready(run))
    for pending in run.activities.values():
        if pending.state is activity.State.SCHEDULED:
            t.effects.append(activity.ready(run, pending))
