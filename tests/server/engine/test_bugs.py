"""A bug of ours harms the workflow it is about, never the server: the next call is answered as if nothing had been."""

from __future__ import annotations

import logging

import pytest

from perdure.server.core.errors import Unavailable
from perdure.server.core.workflow import Workflow
from tests.server.engine.node import running
from tests.virtual_time import in_virtual_time


@in_virtual_time
async def test_rows_that_cannot_be_made_fail_their_batch_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Workflow) -> None:
        raise ValueError("no rows")

    async with running() as node:
        with monkeypatch.context() as bug:
            bug.setattr(Workflow, "take_write", broken)
            with pytest.raises(Unavailable):
                await node.start_workflow()
        await node.start_workflow()


@in_virtual_time
async def test_an_effect_that_fails_takes_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise ValueError("no offer")

    async with running() as node:
        with monkeypatch.context() as bug, caplog.at_level(logging.ERROR):
            bug.setattr(node.engine.matcher, "offer", broken)
            await node.start_workflow()
        assert "an effect failed" in caplog.text
        await node.start_workflow("another")
        tasks = {(await node.poll()).workflow_execution.workflow_id for _ in range(2)}
        assert tasks == {"w", "another"}
