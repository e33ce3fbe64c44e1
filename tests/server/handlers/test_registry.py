"""The table of RPCs agrees with the service descriptors, with its handlers and with the documentation."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
from google.protobuf.message import Message
from temporalio.api.testservice.v1 import service_pb2 as test_service

from perdure.server.core.errors import Unimplemented
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.registry import HANDLERS, SERVICES, Method, methods
from tests.server.handlers.serving import serve

COMPATIBILITY = Path(__file__).parents[3] / "docs" / "compatibility.md"
BUILT = [method for method in methods() if method.built]


def documented() -> Iterator[tuple[str, str, str]]:
    service = ""
    for line in COMPATIBILITY.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"## ((?:temporal|perdure)\.[\w.]+)", line):
            service = heading[1]
        elif row := re.fullmatch(r"\| (\w+) \| (built|not built) \|.*\|", line):
            yield service, row[1], row[2]


def test_the_documentation_lists_every_rpc_with_its_state() -> None:
    expected = [(method.service, method.name, "built" if method.built else "not built") for method in methods()]
    testing = test_service.DESCRIPTOR.services_by_name["TestService"]
    expected += [(testing.full_name, method.name, "not built") for method in testing.methods]
    assert list(documented()) == expected


def test_the_table_has_no_row_the_protocol_does_not_know() -> None:
    known = {service.full_name: {method.name for method in service.methods} for service in SERVICES}
    for service, handlers in HANDLERS.items():
        assert set(handlers) <= known[service]


def test_every_call_is_unary() -> None:
    assert not [
        method.name
        for service in SERVICES
        for method in service.methods
        if method.client_streaming or method.server_streaming
    ]


@pytest.mark.parametrize("method", BUILT, ids=lambda method: method.name)
def test_a_handler_takes_and_returns_the_messages_of_its_rpc(method: Method) -> None:
    hints = get_type_hints(method.handler)
    descriptor = next(service for service in SERVICES if service.full_name == method.service)
    output = descriptor.methods_by_name[method.name].output_type
    assert hints["request"] is method.request_class
    returned = [each for each in getattr(hints["return"], "__args__", (hints["return"],)) if each is not bytes]
    assert [each.DESCRIPTOR for each in returned] == [output]
    assert inspect.iscoroutinefunction(method.handler)


@pytest.mark.parametrize("method", BUILT, ids=lambda method: method.name)
def test_a_handler_is_named_as_its_rpc(method: Method) -> None:
    words = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
    assert getattr(method.handler, "__name__", "") == words


async def test_what_is_not_built_names_itself() -> None:
    served = await serve()
    missing = next(method for method in methods() if not method.built)
    request: Message = missing.request_class()
    with pytest.raises(Unimplemented, match=missing.name):
        await missing.handler(served.server, request, DirectCall())
