"""The health service: asked once, listed, watched, and after the end."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health_pb2

from perdure.server.frontends.grpc.health import OVERALL, Health
from perdure.server.frontends.grpc.status import CallFailed
from tests.virtual_time import in_virtual_time, settle

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Watcher:
    """A stream with one request on it."""

    def __init__(self, service: str) -> None:
        self.told: list[int] = []
        self._request = health_pb2.HealthCheckRequest(service=service).SerializeToString()

    async def read(self) -> bytes | None:
        return self._request

    async def write(self, data: bytes) -> None:
        self.told.append(health_pb2.HealthCheckResponse.FromString(data).status)


class Hasty(Watcher):
    """A stream that ended before its request."""

    async def read(self) -> bytes | None:
        return None


def status(health: Health, service: str) -> int:
    return health.check(health_pb2.HealthCheckRequest(service=service)).status


def test_everything_is_well_at_first() -> None:
    health = Health(["a"])
    assert (status(health, OVERALL), status(health, "a")) == (SERVING, SERVING)


def test_an_unknown_service_is_not_found() -> None:
    with pytest.raises(CallFailed):
        status(Health(["a"]), "b")


def test_the_end_is_the_last_word() -> None:
    health = Health(["a"])
    health.end()
    health.report(is_ready=True)
    assert status(health, "a") == NOT_SERVING


def test_all_services_are_listed() -> None:
    assert str(Health(["a"]).list()).count("SERVING") == 2


@in_virtual_time
async def test_a_watch_tells_now_and_every_change_once() -> None:
    health, watcher = Health(["a"]), Watcher("a")
    watching = asyncio.create_task(health.watch(watcher))
    await settle()
    for is_ready in (True, False, False, True):
        health.report(is_ready=is_ready)
        await settle()
    assert watcher.told == [SERVING, NOT_SERVING, SERVING]
    assert not watching.done()
    health.end()
    await watching
    assert watcher.told[-1] == NOT_SERVING


@in_virtual_time
async def test_a_watch_of_an_unknown_service_goes_on() -> None:
    health, watcher = Health(["a"]), Watcher("b")
    watching = asyncio.create_task(health.watch(watcher))
    await settle()
    assert (watcher.told, watching.done()) == ([UNKNOWN], False)
    health.end()
    await watching


@in_virtual_time
async def test_a_watch_needs_a_request() -> None:
    with pytest.raises(CallFailed):
        await Health(["a"]).watch(Hasty("a"))
