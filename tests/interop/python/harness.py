"""What the interop tests share: a server process, workers of the official SDK, and a look at histories.

The tests see a server as its users do: an address. They import nothing of ours.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import GetWorkflowExecutionHistoryRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.converter import default as default_converter
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

T = TypeVar("T")

START_SECONDS = 10.0
PATIENCE_SECONDS = 10.0

STICKY_TIMEOUT = timedelta(seconds=1)
"""A sticky queue whose worker is gone gives its tasks back after this; the default is 10 seconds."""

SEARCH_ATTRIBUTES = {"InteropKeyword": "Keyword", "InteropInt": "Int", "InteropText": "Text"}


def server_command(port: int, database: str | None) -> list[str]:
    """Return the command that starts a server for development, in memory, on a file or on a URL."""
    command = [sys.executable, "-m", "perdure", "server", "start-dev", "--headless", "--ip", "127.0.0.1"]
    command += ["--port", str(port), *server_settings()]
    if database is not None:
        command += ["--db" if "://" in database else "--db-filename", database]
    return command


def server_settings() -> list[str]:
    """Return the arguments that Perdure and Temporal's own server share."""
    settings = ["--log-level", "warn", "--dynamic-config-value", "system.enableActivityEagerExecution=true"]
    for name, kind in SEARCH_ATTRIBUTES.items():
        settings += ["--search-attribute", f"{name}={kind}"]
    return settings


class Server:
    """A server process that can be killed and started again on the same port.

    Args:
        log: The file its output is appended to.
        database: The database's file or URL, or None for a database in memory.
    """

    def __init__(self, log: Path, database: str | None = None) -> None:
        self._log = log
        self._database = database
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the process; it need not answer yet."""
        assert self._process is None
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                server_command(self._port, self._database), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        """Ask the process to end, and return its exit code."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    async def connect(self) -> Client:
        """Return a client, once the server answers."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return await Client.connect(self.address)
            except RuntimeError as error:
                ended = self._process is not None and self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    raise AssertionError(f"the server does not answer; its log:\n{self._log.read_text()}") from error
            await asyncio.sleep(0.05)


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server, and stop it at the end."""
    server.start()
    try:
        yield server
    finally:
        server.stop()


@asynccontextmanager
async def worker(
    client: Client,
    *,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., object]] = (),
    task_queue: str | None = None,
    identity: str | None = None,
) -> AsyncIterator[Worker]:
    """Run a worker of the official SDK in this process, on a task queue of its own unless one is given."""
    made = Worker(
        client,
        task_queue=task_queue or fresh_id("queue"),
        workflows=workflows,
        activities=activities,
        identity=identity,
        workflow_runner=UnsandboxedWorkflowRunner(),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_heartbeat_throttle_interval=timedelta(milliseconds=50),
        default_heartbeat_throttle_interval=timedelta(milliseconds=50),
    )
    async with made:
        yield made


def fresh_id(what: str) -> str:
    """Return an id that no other test uses."""
    return f"{what}-{uuid.uuid4()}"


async def events_of(handle: WorkflowHandle[T, object]) -> list[HistoryEvent]:
    """Return the history of a run."""
    return [event async for event in handle.fetch_history_events()]


async def event_names(handle: WorkflowHandle[T, object]) -> list[str]:
    """Return the event types of a run's history: `WorkflowExecutionStarted`, ..."""
    return [event_name(event) for event in await events_of(handle)]


def event_name(event: HistoryEvent) -> str:
    """Return the name of an event's type, as Temporal writes it."""
    words = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").split("_")
    return "".join(word.capitalize() for word in words)


async def only_event(handle: WorkflowHandle[T, object], name: str) -> HistoryEvent:
    """Return the one event of a type in a run's history."""
    found = [event for event in await events_of(handle) if event_name(event) == name]
    assert len(found) == 1, f"{len(found)} events {name}"
    return found[0]


async def transition_count(handle: WorkflowHandle[T, object]) -> int:
    """Return how many state transitions the server counted for a run."""
    return (await handle.describe()).raw_description.workflow_execution_info.state_transition_count


async def history_pages(client: Client, workflow_id: str, page_size: int) -> list[list[HistoryEvent]]:
    """Return the history of the current run of a workflow, page by page."""
    request = GetWorkflowExecutionHistoryRequest(
        namespace=client.namespace, execution=WorkflowExecution(workflow_id=workflow_id), maximum_page_size=page_size
    )
    pages = []
    while True:
        reply = await client.workflow_service.get_workflow_execution_history(request)
        pages.append(list(reply.history.events))
        if not reply.next_page_token:
            return pages
        request.next_page_token = reply.next_page_token


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """Look again and again until there is something to see, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (seen := await look()) is None:
        assert time.monotonic() < deadline, "this never came to be seen"
        await asyncio.sleep(0.02)
    return seen


def payload(value: object) -> Payload:
    """Return a value as the SDK's default converter encodes it."""
    return default_converter().payload_converter.to_payload(value)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
