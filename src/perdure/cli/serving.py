"""Running a server as this process: from settings to an exit code. Both commands that serve end here."""

from __future__ import annotations

import gc

import click
import msgspec

import perdure
from perdure.server.settings import ServerSettings, shown_db


def local_ip(ip: str) -> str:
    """Return an address to listen on: SDKs connect to 127.0.0.1 where they are told `localhost`."""
    return "127.0.0.1" if ip == "localhost" else ip


def serve_process(settings: ServerSettings, *, warnings: list[str], notes: list[str]) -> None:
    """Serve until a signal ends it.

    Args:
        settings: What to serve.
        warnings: What the caller asked for and does not get; logged first.
        notes: What was accepted without a use; logged first, for those who look.

    Raises:
        click.ClickException: The server could not start or go on; the message says why and what would do.
    """
    # What is loaded stays: to look through it again and again meanwhile would take a tenth of the start. The server
    # turns the collector on again.
    gc.disable()
    # Imported here: everything else the command line does goes without the protocol's classes.
    from perdure.server.app import CannotServe, run

    def ready(port: int) -> None:
        store = shown_db(settings.db)
        address = msgspec.structs.replace(settings, port=port).address
        click.echo(f"Perdure {perdure.__version__} serves gRPC on {address}, store: {store}")

    try:
        run(settings, ready=ready, warnings=warnings, notes=notes)
    except CannotServe as error:
        raise click.ClickException(str(error)) from error
