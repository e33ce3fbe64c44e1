"""Workflows that signal and cancel others with the official SDK, across a restart of the server too."""

from __future__ import annotations

import asyncio

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError

from tests.interop.python.harness import Server, event_names, fresh_id, only_event, worker

pytestmark = pytest.mark.process


@workflow.defn
class Listener:
    """Collects signals until it hears `stop`, or is cancelled."""

    def __init__(self) -> None:
        self._heard: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: "stop" in self._heard)
        return self._heard

    @workflow.signal
    def say(self, word: str) -> None:
        self._heard.append(word)


@workflow.defn
class Speaker:
    """Says words to another workflow, in their order, or asks it to cancel; tells how that went."""

    @workflow.run
    async def run(self, other_id: str, words: list[str]) -> str:
        other: workflow.ExternalWorkflowHandle[Listener]
        other = workflow.get_external_workflow_handle_for(Listener.run, other_id)
        try:
            if not words:
                await other.cancel()
            for word in words:
                await other.signal(Listener.say, word)
        except ApplicationError as error:
            return f"failed: {error.message}"
        return "said"


@workflow.defn
class Player:
    """Plays with another workflow: each signals the other in turn."""

    def __init__(self) -> None:
        self._turns = 0

    @workflow.run
    async def run(self, other_id: str, rounds: int, serves: bool) -> int:
        other = workflow.get_external_workflow_handle(other_id)
        for turn in range(1, rounds + 1):
            if serves:
                await other.signal(Player.ball)
            await workflow.wait_condition(lambda turn=turn: self._turns >= turn)  # type: ignore[misc]  # bound now
            if not serves:
                await other.signal(Player.ball)
        return self._turns

    @workflow.signal
    def ball(self) -> None:
        self._turns += 1


WORKFLOWS = [Listener, Speaker, Player]


async def speak(client: Client, queue: str, other_id: str, *words: str) -> WorkflowHandle[Speaker, str]:
    return await client.start_workflow(
        Speaker.run, args=[other_id, list(words)], id=fresh_id("speaker"), task_queue=queue
    )


async def test_signals_arrive_in_their_order(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        queue = running.task_queue
        listener = await client.start_workflow(Listener.run, id=fresh_id("listener"), task_queue=queue)
        speaker = await speak(client, queue, listener.id, "one", "two", "stop")
        assert await speaker.result() == "said"
        assert await listener.result() == ["one", "two", "stop"]


async def test_both_sides_record_a_signal(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        queue = running.task_queue
        listener = await client.start_workflow(Listener.run, id=fresh_id("listener"), task_queue=queue)
        speaker = await speak(client, queue, listener.id, "stop")
        await listener.result()
        await speaker.result()
        event = await only_event(listener, "WorkflowExecutionSignaled")
        signaled = await only_event(speaker, "ExternalWorkflowExecutionSignaled")
    assert signaled.external_workflow_execution_signaled_event_attributes.initiated_event_id == 5
    attributes = event.workflow_execution_signaled_event_attributes
    assert attributes.external_workflow_execution.workflow_id == speaker.id
    assert attributes.identity == "history-service"


async def test_a_signal_to_nobody_fails(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        speaker = await speak(client, running.task_queue, fresh_id("nobody"), "hello")
        assert "failed" in await speaker.result()
        assert "SignalExternalWorkflowExecutionFailed" in await event_names(speaker)


async def test_a_cancel_request_reaches_another_workflow(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        queue = running.task_queue
        listener = await client.start_workflow(Listener.run, id=fresh_id("listener"), task_queue=queue)
        assert await (await speak(client, queue, listener.id)).result() == "said"
        with pytest.raises(Exception) as raised:
            await listener.result()
        assert isinstance(getattr(raised.value, "cause", None), CancelledError)
        assert (await listener.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_a_cancel_request_to_nobody_fails_and_to_a_closed_run_does_not(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        queue = running.task_queue
        assert "failed" in await (await speak(client, queue, fresh_id("nobody"))).result()
        listener = await client.start_workflow(Listener.run, id=fresh_id("listener"), task_queue=queue)
        await listener.signal(Listener.say, "stop")
        await listener.result()
        assert await (await speak(client, queue, listener.id)).result() == "said"


async def test_ping_pong(client: Client) -> None:
    async with worker(client, workflows=WORKFLOWS) as running:
        assert await play(client, running.task_queue, rounds=20) == [20, 20]


async def play(client: Client, queue: str, *, rounds: int) -> list[int]:
    ping, pong = fresh_id("ping"), fresh_id("pong")
    games = [
        await client.start_workflow(Player.run, args=[ping, rounds, False], id=pong, task_queue=queue),
        await client.start_workflow(Player.run, args=[pong, rounds, True], id=ping, task_queue=queue),
    ]
    return [await game.result() for game in games]


async def test_a_game_goes_on_after_the_server_was_killed(durable_server: Server) -> None:
    client = await durable_server.connect()
    async with worker(client, workflows=WORKFLOWS) as running:
        game = asyncio.create_task(play(client, running.task_queue, rounds=60))
        for _ in range(3):
            await asyncio.sleep(0.5)
            durable_server.kill()
            durable_server.start()
        assert await game == [60, 60]
