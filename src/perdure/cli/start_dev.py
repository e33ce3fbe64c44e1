"""`perdure server start-dev`: the arguments of `temporal server start-dev`, for whatever starts that one.

Test environments of the SDKs start a server by this argument list. What it names and Perdure has not (the web UI, the
HTTP API, metrics, most of the dynamic configuration) is accepted and logged, never refused.
"""

from __future__ import annotations

import click
import msgspec

from perdure.cli.global_options import given_options, global_options, switch
from perdure.cli.pairs import dynamic_config, key_values, search_attributes
from perdure.cli.serving import local_ip, serve_process
from perdure.server.settings import (
    EngineSettings,
    LogFormat,
    LogLevel,
    ServerSettings,
    SettingsError,
    is_postgres,
    shown_db,
)

_PORT = click.IntRange(0, 65535)

_ABSENT = {
    "http_port": "there is no HTTP API in this release",
    "metrics_port": "there are no metrics in this release",
    "ui_ip": "there is no web UI in this release",
    "ui_port": "there is no web UI in this release",
    "ui_asset_path": "there is no web UI in this release",
    "ui_codec_endpoint": "there is no web UI in this release",
    "ui_public_path": "there is no web UI in this release",
}
"""Options that ask for something the server does not do, and why they do nothing."""


@click.command("start-dev")
@click.option("--ip", default="localhost", show_default=True, help="Address to listen on.")
@click.option("--port", "-p", type=_PORT, default=7233, show_default=True, help="Port of the gRPC service.")
@click.option("--db-filename", "-f", help="SQLite file. Without it everything is lost when the process ends.")
@click.option("--db", metavar="URL", help="Instead of --db-filename: what `perdure server` takes.")
@click.option("--sqlite-pragma", multiple=True, metavar="NAME=VALUE", help="SQLite pragma. Repeatable.")
@click.option("--namespace", "-n", multiple=True, help="Namespace to create besides `default`. Repeatable.")
@click.option("--search-attribute", multiple=True, metavar="NAME=TYPE", help="Attribute to register. Repeatable.")
@click.option("--dynamic-config-value", multiple=True, metavar="KEY=JSON", help="Keys that name a limit set it.")
@switch("--log-config", help="Print the settings to standard error.")
@switch("--headless", help="Accepted: there is no web UI.")
@click.option("--http-port", type=_PORT, help="Accepted and logged.")
@click.option("--metrics-port", type=_PORT, help="Accepted and logged.")
@click.option("--ui-ip", help="Accepted and logged.")
@click.option("--ui-port", type=_PORT, help="Accepted and logged.")
@click.option("--ui-asset-path", help="Accepted and logged.")
@click.option("--ui-codec-endpoint", help="Accepted and logged.")
@click.option("--ui-public-path", help="Accepted and logged.")
@global_options
@click.pass_context
def start_dev(
    context: click.Context,
    /,
    *,
    ip: str,
    port: int,
    db_filename: str | None,
    db: str | None,
    sqlite_pragma: tuple[str, ...],
    namespace: tuple[str, ...],
    search_attribute: tuple[str, ...],
    dynamic_config_value: tuple[str, ...],
    log_config: bool,
    headless: bool,
    **absent: str | int | None,
) -> None:
    """Run a server with the arguments of `temporal server start-dev`.

    Without --db-filename or --db everything is kept in memory only.
    """
    if db and db_filename:
        raise click.UsageError("--db and --db-filename both say where to store; give one of them")
    given = given_options(context)
    limits, unused_keys = dynamic_config("--dynamic-config-value", dynamic_config_value)
    try:
        settings = ServerSettings(
            db=db or db_filename or "memory:",
            sqlite_pragmas=key_values("--sqlite-pragma", sqlite_pragma),
            ip=local_ip(ip),
            port=port,
            namespaces=namespace,
            search_attributes=search_attributes("--search-attribute", search_attribute),
            log_format=given.log_format or LogFormat.TEXT,
            log_level=given.log_level or LogLevel.WARN,
            engine=EngineSettings(limits=limits),
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    if log_config:
        shown = msgspec.structs.replace(settings, db=shown_db(settings.db)) if is_postgres(settings.db) else settings
        click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode(), err=True)
    warnings = [
        f"--{name.replace('_', '-')} {value} has no effect: {_ABSENT[name]}"
        for name, value in absent.items()
        if value is not None
    ]
    notes = [f"{option} has no effect on a server" for option in given.unused]
    notes += [f"dynamic configuration {key} has no effect" for key in unused_keys]
    serve_process(settings, warnings=warnings, notes=notes)
