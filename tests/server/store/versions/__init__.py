"""Databases as older releases left them: their schemas, and rows of what waits in every way."""

from __future__ import annotations

from pathlib import Path

import msgspec

from perdure.server.core.records import OutboxRecord
from tests.server.store import rows

SCHEMAS = Path(__file__).parent
WORKFLOW_IDS = [f"order-{number}" for number in range(5)]
GONE = "a workflow that was deleted"


def schema(version: int, database: str) -> list[str]:
    """Return the statements that made the schema of a version on `sqlite` or `postgres`."""
    text = (SCHEMAS / f"version_{version}.{database}.sql").read_text()
    return [statement for statement in text.split(";\n") if statement.strip()]


def rows_of_version_1() -> list[tuple[str, dict[str, object]]]:
    """Return rows by table: runs that are ready, activities that are ready, a message whose run is deleted."""
    found: list[tuple[str, dict[str, object]]] = [
        ("migration", {"version": 1, "applied_at": rows.START}),
        ("meta", {"name": "cluster_id", "value": "4a3b2c1d-0000-4000-8000-000000000000"}),
        ("node", {"node": "node", "incarnation": 3, "batch": 17}),
    ]
    for workflow_id in WORKFLOW_IDS:
        run_id = f"run of {workflow_id}"
        run = rows.run(workflow_id, run_id, task_ready_queue="orders", task_ready_at=rows.START, alarm_at=rows.START)
        columns = msgspec.structs.asdict(run)
        del columns["stored_version"]
        found.append(("run", columns))
        found.append(("event", rows.event(run_id, 1)._asdict()))
        found += [
            ("activity", rows.activity(run_id, event_id, workflow_id=workflow_id)._asdict()) for event_id in (5, 6)
        ]
        found.append(("outbox", _message(run_id, workflow_id)))
    found.append(("outbox", _message("a run that was deleted", GONE)))
    return found


def _message(run_id: str, workflow_id: str) -> dict[str, object]:
    message = OutboxRecord(
        run_id, 1, rows.NAMESPACE, workflow_id, rows.NAMESPACE, WORKFLOW_IDS[0], "signal", 0, rows.START, b"body"
    )
    return message._asdict()
