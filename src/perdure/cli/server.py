"""`perdure server`: the arguments of a server process, one for every field of `ServerSettings`."""

from __future__ import annotations

import click
from click.core import ParameterSource

from perdure.cli.global_options import given_options, global_options, switch
from perdure.cli.pairs import engine_settings, key_values, postgres_settings, search_attributes
from perdure.cli.serving import local_ip, serve_process
from perdure.cli.start_dev import start_dev
from perdure.server.settings import ServerSettings, SettingsError

_DEFAULTS = ServerSettings()


@click.group("server", invoke_without_command=True)
@click.option(
    "--db",
    default=_DEFAULTS.db,
    show_default=True,
    help="sqlite:///file.db, a path, memory:, postgresql://user:password@host:port/database, or the same with cockroachdb://",
)
@click.option("--sqlite-pragma", multiple=True, metavar="NAME=VALUE", help="SQLite pragma. Repeatable.")
@click.option(
    "--lock-wait-seconds",
    type=float,
    default=_DEFAULTS.lock_wait_seconds,
    show_default=True,
    help="How long to wait for another process that works on the SQLite file.",
)
@click.option("--postgres", multiple=True, metavar="NAME=NUMBER", help="Change a setting of PostgreSQL. Repeatable.")
@switch("--no-migrate", help="Refuse a database whose schema `perdure db migrate` would change, and leave it alone.")
@click.option(
    "--store-check-seconds",
    type=float,
    default=_DEFAULTS.store_check_seconds,
    show_default=True,
    help="How often to look whether the store can write, for the health service.",
)
@click.option("--ip", default=_DEFAULTS.ip, show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_DEFAULTS.port,
    show_default=True,
    help="Port of the gRPC service; 0 takes a free one.",
)
@click.option(
    "--advertise",
    default=_DEFAULTS.advertise,
    metavar="HOST:PORT",
    help="Address at which other nodes of the cluster reach this one; found where it is not given.",
)
@click.option(
    "--concurrent-calls-max",
    type=int,
    default=_DEFAULTS.concurrent_calls_max,
    show_default=True,
    help="Calls in progress at once, parked polls included.",
)
@click.option("--namespace", multiple=True, help="Namespace to create besides `default`. Repeatable.")
@click.option(
    "--namespace-retention-seconds",
    type=int,
    default=_DEFAULTS.namespace_retention_seconds,
    show_default=True,
    help="How long namespaces created at start keep closed runs.",
)
@click.option("--search-attribute", multiple=True, metavar="NAME=TYPE", help="Attribute to register. Repeatable.")
@click.option(
    "--shutdown-grace-seconds",
    type=float,
    default=_DEFAULTS.shutdown_grace_seconds,
    show_default=True,
    help="How long calls in progress may run on at shutdown.",
)
@click.option("--engine", multiple=True, metavar="NAME=NUMBER", help="Change a setting of the engine. Repeatable.")
@click.option("--limit", multiple=True, metavar="NAME=NUMBER", help="Change a limit. Repeatable.")
@global_options
@click.pass_context
def server(
    context: click.Context,
    /,
    *,
    db: str,
    sqlite_pragma: tuple[str, ...],
    lock_wait_seconds: float,
    postgres: tuple[str, ...],
    no_migrate: bool,
    store_check_seconds: float,
    ip: str,
    port: int,
    advertise: str,
    concurrent_calls_max: int,
    namespace: tuple[str, ...],
    namespace_retention_seconds: int,
    search_attribute: tuple[str, ...],
    shutdown_grace_seconds: float,
    engine: tuple[str, ...],
    limit: tuple[str, ...],
) -> None:
    """Run a server. SIGTERM and SIGINT stop it once calls in progress are answered."""
    if context.invoked_subcommand is not None:
        _refuse_options_before(context, context.invoked_subcommand)
        return
    given = given_options(context)
    try:
        settings = ServerSettings(
            db=db,
            sqlite_pragmas=key_values("--sqlite-pragma", sqlite_pragma),
            lock_wait_seconds=lock_wait_seconds,
            postgres=postgres_settings(postgres),
            migrate=not no_migrate,
            store_check_seconds=store_check_seconds,
            ip=local_ip(ip),
            port=port,
            advertise=advertise,
            concurrent_calls_max=concurrent_calls_max,
            namespaces=namespace,
            namespace_retention_seconds=namespace_retention_seconds,
            search_attributes=search_attributes("--search-attribute", search_attribute),
            shutdown_grace_seconds=shutdown_grace_seconds,
            log_format=given.log_format or _DEFAULTS.log_format,
            log_level=given.log_level or _DEFAULTS.log_level,
            engine=engine_settings(engine, limit),
        )
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    serve_process(settings, warnings=[], notes=[f"{option} has no effect on a server" for option in given.unused])


def _refuse_options_before(context: click.Context, subcommand: str) -> None:
    """Raise click.UsageError for an option of this command before a subcommand, where it would have no effect."""
    for name in context.params:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{name.replace('_', '-')} before {subcommand} has no effect: it has options of its own"
            )


server.add_command(start_dev)
