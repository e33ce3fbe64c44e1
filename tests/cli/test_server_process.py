"""Server processes: from the arguments of the SDKs to a first answer, and from a signal to the exit code."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from temporalio.api.common.v1 import WorkflowType
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.operatorservice.v1.service_pb2_grpc import OperatorServiceStub
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    GetSystemInfoRequest,
    PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse,
    StartWorkflowExecutionRequest,
)
from temporalio.api.workflowservice.v1.service_pb2_grpc import WorkflowServiceStub
from temporalio.testing import WorkflowEnvironment

from tests.cli.sdk_arguments import GO_INTEGRATION_SETTINGS, go, python, typescript
from tests.cli.server_process import READY, serving, spawn

pytestmark = pytest.mark.process

NOT_NEEDED = ("asyncpg", "sqlglot", "psutil", "google.protobuf.json_format", "temporalio.client", "temporalio.worker")
"""What takes long to load, and no server on an SQLite file needs for its first answer."""
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@contextmanager
def connected(address: str) -> Iterator[grpc.Channel]:
    """Open a channel to a server."""
    with grpc.insecure_channel(address) as channel:
        yield channel


def first_answer(channel: grpc.Channel) -> None:
    """Ask what every SDK asks first."""
    info = WorkflowServiceStub(channel).GetSystemInfo(GetSystemInfoRequest(), timeout=5)
    assert info.server_version
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check", HealthCheckRequest.SerializeToString, HealthCheckResponse.FromString
    )
    health = check(HealthCheckRequest(service="temporal.api.workflowservice.v1.WorkflowService"), timeout=5)
    assert health.status == HealthCheckResponse.SERVING


def start_request(workflow_id: str) -> StartWorkflowExecutionRequest:
    """Return a request that starts a workflow which no worker takes."""
    return StartWorkflowExecutionRequest(
        namespace="default",
        workflow_id=workflow_id,
        workflow_type=WorkflowType(name="Order"),
        task_queue=TaskQueue(name="orders"),
        request_id=workflow_id,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        python(0, "--search-attribute", "CustomKeywordField=Keyword", namespace="mine"),
        typescript(0, "--search-attribute", "CustomKeywordField=Keyword", namespace="mine", ui_port=8300),
        go(0, *GO_INTEGRATION_SETTINGS, namespace="mine"),
        go(0, *GO_INTEGRATION_SETTINGS, namespace="mine", database="dev.db"),
    ],
    ids=["python", "typescript", "go", "go-file"],
)
def test_the_arguments_of_an_sdk_start_a_server(arguments: Sequence[str], tmp_path: Path) -> None:
    with serving(arguments, tmp_path) as server, connected(server.address) as channel:
        first_answer(channel)
        for namespace in ("default", "mine"):
            WorkflowServiceStub(channel).DescribeNamespace(DescribeNamespaceRequest(namespace=namespace), timeout=5)
            attributes = OperatorServiceStub(channel).ListSearchAttributes(
                ListSearchAttributesRequest(namespace=namespace), timeout=5
            )
            custom = attributes.custom_attributes["CustomKeywordField"]
            assert custom == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    assert (tmp_path / "dev.db").exists() == ("dev.db" in arguments)


async def test_the_python_sdk_starts_a_server_itself() -> None:
    executable = Path(sys.executable).with_name("perdure")
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=str(executable), namespace="mine")
    async with environment:
        assert await environment.client.service_client.check_health()
        await environment.client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="mine"))


def test_a_server_loads_nothing_before_its_first_answer_that_it_does_not_need() -> None:
    """Its first answer has to come within half a second, most of which it loads; `benchmarks` measures it."""
    load = (
        "import sys\n"
        "import perdure.cli.server, perdure.cli.serving\n"
        "from perdure.server.app import make_store\n"
        "from perdure.server.settings import ServerSettings\n"
        "make_store(ServerSettings(db='memory:'))\n"
        f"print([name for name in {NOT_NEEDED} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_server_without_a_database_stores_in_the_working_directory(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(["server", "--port", "0", "--namespace", "kept", "--ip", "localhost"], tmp_path) as server:
            assert (server.ip, server.store) == ("127.0.0.1", "perdure.db")
            server.process.send_signal(signal.SIGTERM)
            assert server.end()[0] == 0
    assert (tmp_path / "perdure.db").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_the_server(number: signal.Signals, tmp_path: Path) -> None:
    with (
        serving(["server", "--port", "0", "--db", "memory:"], tmp_path) as server,
        connected(server.address) as channel,
    ):
        request = PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="idle"))
        poll = WorkflowServiceStub(channel).PollWorkflowTaskQueue.future(request, timeout=30)
        first_answer(channel)
        server.process.send_signal(number)
        assert poll.result() == PollWorkflowTaskQueueResponse(), "a waiting poll ends empty"
        code, log = server.end()
    assert code == 0
    assert log.splitlines()[-1].endswith("perdure.server.app: stopped")


def test_a_second_signal_ends_the_server_at_once(tmp_path: Path) -> None:
    with (
        serving(["server", "--port", "0", "--db", "memory:"], tmp_path) as server,
        connected(server.address) as channel,
        _call_that_does_not_end(channel),
    ):
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        code, log = server.end()
    assert code in (128 + signal.SIGTERM, 128 + signal.SIGINT)
    assert "stopped" not in log


@contextmanager
def _call_that_does_not_end(channel: grpc.Channel) -> Iterator[None]:
    """Make a call that keeps a server from stopping: with none it may have stopped before it sees a second signal."""
    may_end = threading.Event()

    def requests() -> Iterator[bytes]:
        yield ServerReflectionRequest(list_services="").SerializeToString()
        may_end.wait()

    ask: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(REFLECTION)
    replies = ask(requests())
    next(replies)
    try:
        yield
    finally:
        may_end.set()


def test_a_port_in_use_is_said_clearly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with spawn(["server", "--port", str(port), "--db", "memory:"], tmp_path) as process:
            output, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output == ""
    assert log.splitlines()[-1].startswith(f"Error: cannot listen on 127.0.0.1:{port}: ")


@contextmanager
def unlocked(directory: Path) -> Iterator[None]:
    """Let locks keep nobody out, as on a file system that has none."""
    (directory / "orders.db.lock").unlink(missing_ok=True)
    yield


def test_a_second_server_on_a_file_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", "orders.db"]
    with serving(arguments, tmp_path) as first:
        with spawn(arguments, tmp_path) as second:
            output, log = second.communicate(timeout=30)
        assert (second.returncode, output) == (1, "")
        told = f"Error: cannot open the store orders.db: orders.db is in use by process {first.process.pid} on "
        assert log.splitlines()[-1].startswith(told)
        with connected(first.address) as channel:
            assert WorkflowServiceStub(channel).StartWorkflowExecution(start_request("next"), timeout=10).run_id


def test_a_server_may_wait_for_the_end_of_another(tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", "orders.db"]
    with (
        serving(arguments, tmp_path) as first,
        spawn([*arguments, "--lock-wait-seconds", "60"], tmp_path) as second,
    ):
        assert second.stderr is not None and second.stdout is not None
        assert f"waiting for the end of process {first.process.pid} " in second.stderr.readline()
        first.process.kill()
        assert READY.match(second.stdout.readline())
        second.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_waits(number: signal.Signals, tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", "orders.db", "--lock-wait-seconds", "600"]
    with serving(arguments, tmp_path), spawn(arguments, tmp_path) as second:
        assert second.stderr is not None
        assert "waiting for the end of" in second.stderr.readline()
        second.send_signal(number)
        second.communicate(timeout=30)
        assert second.returncode != 0


def test_a_second_server_with_an_address_that_is_in_use_does_not_start(postgres_url: str, tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", postgres_url, "--advertise", "127.0.0.1:1"]
    arguments += ["--engine", "cluster.lease_seconds=1"]
    with serving(arguments, tmp_path) as first:
        with spawn(arguments, tmp_path) as second:
            _, log = second.communicate(timeout=30)
        assert second.returncode == 1
        assert "another process uses the address 127.0.0.1:1" in log.splitlines()[-1]
        with connected(first.address) as channel:
            assert WorkflowServiceStub(channel).StartWorkflowExecution(start_request("still"), timeout=10).run_id


def test_a_server_whose_store_was_taken_over_ends(tmp_path: Path) -> None:
    arguments = ["server", "--port", "0", "--db", "orders.db"]
    with serving(arguments, tmp_path) as first, unlocked(tmp_path), serving(arguments, tmp_path) as second:
        with connected(first.address) as channel, pytest.raises(grpc.RpcError) as refused:
            WorkflowServiceStub(channel).StartWorkflowExecution(start_request("late"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        code, log = first.end()
        with connected(second.address) as channel:
            assert WorkflowServiceStub(channel).StartWorkflowExecution(start_request("next"), timeout=10).run_id
    assert code == 1
    assert log.splitlines()[-1].startswith("Error: another process has taken over the store orders.db")


def test_a_database_that_is_none_is_said_clearly(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database, but long enough to be read as the header of one " * 10)
    with spawn(["server", "--port", "0", "--db", "notes.db"], tmp_path) as process:
        _, log = process.communicate(timeout=30)
    assert process.returncode == 1
    assert log.splitlines()[-1].startswith("Error: cannot open the store notes.db: ")
