"""The composition root: puts a server together out of its parts, runs it, and takes it apart in the opposite order.

The only module that knows the concrete store, the clock and the front ends. It must never hold a rule of the engine.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest

from perdure import __version__
from perdure.server.core.errors import ServerError
from perdure.server.engine.clock import Clock, SystemClock
from perdure.server.engine.cluster.services import RPC
from perdure.server.engine.engine import Engine
from perdure.server.engine.namespaces import DEFAULT_NAMESPACE
from perdure.server.frontends.grpc.frontend import GrpcFrontend
from perdure.server.frontends.links import TcpDialer
from perdure.server.handlers.call import DirectCall
from perdure.server.handlers.dispatch import Dispatcher
from perdure.server.handlers.registry import methods
from perdure.server.handlers.server import Server
from perdure.server.logging import configure
from perdure.server.readiness import Readiness
from perdure.server.settings import (
    ServerSettings,
    is_cockroach,
    is_postgres,
    shown_db,
    sqlite_path,
    store_name,
)
from perdure.server.store.interface import ClusterStore, StoreError
from perdure.server.store.sqlite import FileHeld, FileLock, SqliteStore

if TYPE_CHECKING:
    from perdure.server.engine.cluster.cluster import Cluster

_log = logging.getLogger(__name__)

_NEW_OBJECTS_PER_COLLECTION: Final = 50_000
"""Python's own is 700."""


class CannotServe(Exception):
    """The server could not start, or could not go on. The message says why, and what would do."""


class RunningServer(NamedTuple):
    """A server that answers calls."""

    port: int
    fenced: asyncio.Event
    """Set when another process has taken over the store: nothing can be written any more."""


@asynccontextmanager
async def running(settings: ServerSettings) -> AsyncIterator[RunningServer]:
    """Run a server for as long as the context lasts.

    At the end it takes no new calls, answers those in progress, and closes the store.

    Raises:
        CannotServe: A part could not start; those already started are stopped.
    """
    async with AsyncExitStack() as parts:
        store, cluster_id = await _open_store(settings, parts)
        frontend = GrpcFrontend(
            methods(),
            address=settings.address,
            concurrent_calls_max=settings.concurrent_calls_max,
            message_size=settings.engine.limits.message_size,
        )
        port = await _bind(frontend)
        # Has nothing left to do after `_drain`, but a start that fails never gets that far.
        parts.push_async_callback(frontend.stop, 0.0)
        # There rows lie in the order of their keys: those of runs that start now must not all lie at the end.
        clock = SystemClock(run_ids_rise=not is_cockroach(settings.db))
        cluster = _make_cluster(settings, store, clock, port)
        engine = Engine(store, clock, settings.engine, cluster)
        server = Server(
            engine,
            engine.namespaces,
            cluster_id,
            store_name(settings.db),
            limits=settings.engine.limits,
        )
        dispatcher = Dispatcher(server, methods(), None if cluster is None else cluster.forwarding)
        if cluster is not None:
            cluster.services.offer(RPC, dispatcher.serve_forwarded)
        try:
            await engine.start(settings.namespaces, retention_seconds=settings.namespace_retention_seconds)
        except StoreError as error:
            raise CannotServe(f"cannot take over the store {shown_db(settings.db)}: {error}") from error
        parts.push_async_callback(engine.stop)
        await frontend.start(dispatcher, None if cluster is None else cluster.accept)
        await _register_search_attributes(dispatcher, settings)
        readiness = Readiness(store, frontend, settings.store_check_seconds)
        readiness.start()
        parts.push_async_callback(readiness.stop)
        parts.push_async_callback(_drain, frontend, engine, settings.shutdown_grace_seconds)
        yield RunningServer(port, engine.fenced_event)


async def serve(settings: ServerSettings, ready: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second signal ends the process at once.

    Args:
        settings: What to serve.
        ready: Called once with the port, when calls are answered.

    Raises:
        CannotServe: The server could not start, or another process took over its store.
    """
    told_to_stop = asyncio.Event()
    async with running(settings) as server:
        # Not before: until calls are answered there is nothing to drain, and a signal ends the process at once.
        _on_stop_signal(told_to_stop)
        _log.info("serving", extra={"ip": settings.ip, "port": server.port, "db": shown_db(settings.db)})
        if ready is not None:
            ready(server.port)
        await _first_of(told_to_stop, server.fenced)
        _log.info("stopping")
    _log.info("stopped")
    if server.fenced.is_set():
        raise CannotServe(_why_fenced(settings))


def _why_fenced(settings: ServerSettings) -> str:
    db = shown_db(settings.db)
    if is_postgres(settings.db):
        return f"another process uses this one's address on {db}: give each server one of its own with --advertise"
    return f"another process has taken over the store {db}; only one at a time may serve it"


def run(
    settings: ServerSettings,
    *,
    ready: Callable[[int], None] | None = None,
    warnings: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Serve in this process until a signal ends it, on the fastest event loop there is.

    Args:
        settings: What to serve, and how to log.
        ready: Called once with the port, when calls are answered.
        warnings: Lines to log first, as warnings.
        notes: Lines to log first, for information.

    Raises:
        CannotServe: The server could not start, or another process took over its store.
    """
    configure(settings.log_format, settings.log_level)
    for line in warnings:
        _log.warning(line)
    for line in notes:
        _log.info(line)
    spare_the_collector()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, ready))


def spare_the_collector() -> None:
    """Have Python look for circles of garbage less often: the engine makes hardly any, and the search is a tenth of it.

    For processes of our own only: what is imported by now is never looked through again.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_PER_COLLECTION)
    gc.enable()


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _drain(frontend: GrpcFrontend, engine: Engine, grace_seconds: float) -> None:
    """Take no new calls, end those that only wait, and let the others finish."""
    closing = asyncio.create_task(frontend.stop(grace_seconds), name="front end stop")
    await engine.drain()
    await closing


async def _open_store(settings: ServerSettings, parts: AsyncExitStack) -> tuple[SqliteStore | ClusterStore, str]:
    """Return the store, open for as long as the parts last, and the id of its cluster."""
    cannot = f"cannot open the store {shown_db(settings.db)}"
    try:
        store = make_store(settings)
        if isinstance(store, SqliteStore):
            # First: a file that is refused gets no lock beside it.
            store.require_made()
            await _keep_others_out(settings, parts)
        await store.open()
        parts.push_async_callback(store.close)
        return store, await store.cluster_id()
    except FileHeld as error:
        raise CannotServe(
            f"{cannot}: {error}, or wait for its end with `perdure server --lock-wait-seconds`"
        ) from error
    except (StoreError, ValueError) as error:
        raise CannotServe(f"{cannot}: {error}") from error


async def _keep_others_out(settings: ServerSettings, parts: AsyncExitStack) -> None:
    """Hold the lock of an SQLite file for as long as the parts last. In front of other databases stands the fence."""
    path = sqlite_path(settings.db)
    if path is not None:
        lock = FileLock(path)
        await lock.acquire(settings.lock_wait_seconds)
        parts.callback(lock.release)


async def _bind(frontend: GrpcFrontend) -> int:
    try:
        return await frontend.bind()
    except OSError as error:
        raise CannotServe(f"{error}; another process may be listening there: stop it or take another port") from error


def _make_cluster(
    settings: ServerSettings, store: SqliteStore | ClusterStore, clock: Clock, port: int
) -> Cluster | None:
    """Return the cluster that this server is a node of; None where its store has one node, always."""
    if isinstance(store, SqliteStore):
        return None
    # Imported here: who stores in SQLite starts without it.
    from perdure.server.address import node_address
    from perdure.server.engine.cluster.cluster import Cluster

    try:
        address = node_address(settings, port)
    except (OSError, ValueError) as error:
        raise CannotServe(f"no address is found for other nodes to reach this one, set --advertise: {error}") from error
    return Cluster(store, clock, address, __version__, TcpDialer(), settings.engine.cluster)


def make_store(settings: ServerSettings) -> SqliteStore | ClusterStore:
    """Return the store that the settings name, not opened yet. Raises ValueError where they name none."""
    if is_postgres(settings.db):
        # Imported here: who stores in SQLite starts without the driver.
        from perdure.server.store.postgres import COCKROACH, POSTGRES, PostgresStore

        postgres = settings.postgres.within(settings.engine.cluster.lease_seconds)
        dialect = COCKROACH if is_cockroach(settings.db) else POSTGRES
        return PostgresStore(settings.db, postgres, dialect, migrates=settings.migrate)
    return SqliteStore(sqlite_path(settings.db), settings.sqlite_pragmas, migrates=settings.migrate)


async def _register_search_attributes(dispatcher: Dispatcher, settings: ServerSettings) -> None:
    if not settings.search_attributes:
        return
    [method] = [method for method in methods() if method.name == "AddSearchAttributes"]
    types = {name: IndexedValueType.ValueType(number) for name, number in settings.search_attributes.items()}
    for namespace in {DEFAULT_NAMESPACE, *settings.namespaces}:
        request = AddSearchAttributesRequest(search_attributes=types, namespace=namespace)
        try:
            await dispatcher.serve(method, request.SerializeToString(), DirectCall())
        except ServerError as error:
            raise CannotServe(f"cannot register the search attributes: {error}") from error


def _on_stop_signal(told_to_stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if told_to_stop.is_set():
            _log.warning("a second signal: stopping at once")
            os._exit(128 + number)
        told_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        if sys.platform == "win32":
            # The loops there take no signals: the handler runs between bytecodes and wakes the loop itself.
            signal.signal(number, lambda number, _: loop.call_soon_threadsafe(stop, number))
        else:
            loop.add_signal_handler(number, stop, number)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
