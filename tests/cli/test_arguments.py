"""Arguments become settings: what is given, what is assumed, what is refused, and what is accepted without a use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
from click.testing import CliRunner

import perdure
from perdure.cli.main import main
from perdure.server import app
from perdure.server.settings import (
    ClusterSettings,
    EngineSettings,
    Limits,
    LogFormat,
    LogLevel,
    MatcherSettings,
    PostgresSettings,
    ServerSettings,
)
from tests.cli.sdk_arguments import GO_INTEGRATION_SETTINGS, go, python, typescript


class Start(NamedTuple):
    """A start of the server that the command line asked for."""

    settings: ServerSettings
    warnings: Sequence[str]
    notes: Sequence[str]


class Starts(list[Start]):
    """Stands in for `app.run`: a server that is told to start and stops at once."""

    def __call__(
        self,
        settings: ServerSettings,
        *,
        ready: Callable[[int], None],
        warnings: Sequence[str],
        notes: Sequence[str],
    ) -> None:
        ready(settings.port or 40_000)
        self.append(Start(settings, warnings, notes))


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts = Starts()
    monkeypatch.setattr(app, "run", starts)
    return starts


def start(starts: Starts, *arguments: str) -> Start:
    """Run the command line, which must start one server."""
    result = CliRunner().invoke(main, arguments, prog_name="perdure")
    assert result.exit_code == 0, result.output
    (started,) = starts
    return started


def refusal(*arguments: str) -> str:
    """Run the command line, which must refuse its arguments; return what it says."""
    result = CliRunner().invoke(main, arguments, prog_name="perdure")
    assert result.exit_code == 2, result.output
    return result.stderr


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"perdure {perdure.__version__}\n"


def test_server_without_arguments_has_the_default_settings(starts: Starts) -> None:
    assert start(starts, "server") == Start(ServerSettings(), [], [])


def test_every_setting_has_an_argument(starts: Starts) -> None:
    arguments = ["--db", "sqlite:////data/orders.db", "--sqlite-pragma", "cache_size=-4000", "--ip", "::1"]
    arguments += ["--port", "7300", "--concurrent-calls-max", "100", "--namespace", "a", "--namespace", "b"]
    arguments += ["--namespace-retention-seconds", "60", "--search-attribute", "Region=Keyword"]
    arguments += [
        "--engine",
        "cache_bytes=1000",
        "--engine",
        "matcher.rescan_seconds=2.5",
        "--engine",
        "cluster.lease_seconds=1.5",
        "--advertise",
        "10.0.0.1:7300",
        "--shutdown-grace-seconds",
        "0.5",
        "--log-format",
        "json",
    ]
    arguments += ["--log-level", "debug", "--limit", "pending_activities=10"]
    arguments += ["--postgres", "read_connections=9", "--postgres", "lock_timeout_seconds=2.5"]
    arguments += ["--store-check-seconds", "7", "--lock-wait-seconds", "3"]
    assert start(starts, "server", *arguments).settings == ServerSettings(
        db="sqlite:////data/orders.db",
        sqlite_pragmas={"cache_size": "-4000"},
        postgres=PostgresSettings(read_connections=9, lock_timeout_seconds=2.5),
        store_check_seconds=7.0,
        lock_wait_seconds=3.0,
        ip="::1",
        port=7300,
        advertise="10.0.0.1:7300",
        concurrent_calls_max=100,
        namespaces=("a", "b"),
        namespace_retention_seconds=60,
        search_attributes={"Region": 2},
        shutdown_grace_seconds=0.5,
        log_format=LogFormat.JSON,
        log_level=LogLevel.DEBUG,
        engine=EngineSettings(
            cache_bytes=1000,
            cluster=ClusterSettings(lease_seconds=1.5),
            matcher=MatcherSettings(rescan_seconds=2.5),
            limits=Limits(pending_activities=10),
        ),
    )


def test_a_server_for_development_is_in_memory_and_quiet(starts: Starts) -> None:
    settings = start(starts, "server", "start-dev").settings
    assert settings == ServerSettings(db="memory:", log_level=LogLevel.WARN)


def test_a_server_for_development_stores_where_a_url_says_and_tells_nobody_the_password(starts: Starts) -> None:
    url = "postgresql://ada:secret@localhost/dev"
    result = CliRunner().invoke(main, ["server", "start-dev", "--db", url, "--log-config"])
    assert starts[0].settings.db == url
    assert "store: postgresql://ada@localhost/dev" in result.stdout
    assert "secret" not in result.output


def test_a_server_for_development_takes_all_arguments_of_temporals(starts: Starts) -> None:
    arguments = ["-f", "dev.db", "-n", "a", "-n", "b", "-p", "7300", "--ip", "localhost", "--sqlite-pragma", "x=1"]
    arguments += ["--http-port", "7301", "--metrics-port", "7302", "--ui-port", "7303", "--ui-ip", "127.0.0.1"]
    arguments += ["--ui-public-path", "/ui", "--ui-asset-path", "assets", "--ui-codec-endpoint", "http://codec"]
    arguments += ["--log-config", "--headless=false", "--search-attribute", "Tags=keywordlist"]
    started = start(starts, "server", "start-dev", *arguments)
    assert started.settings == ServerSettings(
        db="dev.db",
        sqlite_pragmas={"x": "1"},
        ip="127.0.0.1",
        port=7300,
        namespaces=("a", "b"),
        search_attributes={"Tags": 7},
        log_level=LogLevel.WARN,
    )
    assert len(started.warnings) == 7
    assert "--ui-port 7303 has no effect: there is no web UI in this release" in started.warnings


def test_dynamic_configuration_sets_limits_and_the_rest_is_noted(starts: Starts) -> None:
    pairs = ["limit.blobSize.error=5120", "limit.historyCount.suggestContinueAsNew=50", 'system.x="0s"', "a.b=true"]
    started = start(
        starts, "server", "start-dev", *(part for pair in pairs for part in ("--dynamic-config-value", pair))
    )
    assert started.settings.engine.limits == Limits(blob_size_error=5120, history_count_suggest_continue_as_new=50)
    assert started.notes == [f"dynamic configuration {key} has no effect" for key in ("system.x", "a.b")]


def test_options_of_every_level_may_stand_at_every_level(starts: Starts) -> None:
    arguments = ["--log-level", "error", "--color", "never", "server", "--log-format=json", "--env", "dev", "start-dev"]
    arguments += ["--log-level=info", "--disable-config-file", "-o", "json", "--command-timeout", "0s"]
    started = start(starts, *arguments)
    assert (started.settings.log_level, started.settings.log_format) == (LogLevel.INFO, LogFormat.JSON)
    named = ("--color", "--env", "--disable-config-file", "--output", "--command-timeout")
    assert sorted(started.notes) == sorted(f"{option} has no effect on a server" for option in named)


@pytest.mark.parametrize(("name", "level"), [("never", "never"), ("warning", "warn"), ("fatal", "error")])
def test_log_levels_have_the_names_other_programs_give_them(name: str, level: str, starts: Starts) -> None:
    assert start(starts, "server", "start-dev", "--log-level", name).settings.log_level is LogLevel(level)


@pytest.mark.parametrize(
    "arguments",
    [
        python(7300, "--search-attribute", "Tags=KeywordList", database="dev.db", namespace="ns"),
        typescript(7300, database="dev.db", namespace="ns", ui_port=8300),
        go(7300, *GO_INTEGRATION_SETTINGS, database="dev.db", namespace="ns"),
    ],
    ids=["python", "typescript", "go"],
)
def test_what_sdks_ask_for_is_what_they_get(arguments: list[str], starts: Starts) -> None:
    settings = start(starts, *arguments).settings
    assert (settings.db, settings.ip, settings.port) == ("dev.db", "127.0.0.1", 7300)
    assert list(settings.namespaces) == ["ns"]
    assert (settings.log_level, settings.log_format) == (LogLevel.WARN, LogFormat.TEXT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["server", "--db", "mysql://h/d"],
            "write sqlite:///file.db, a path, postgresql://host/database, or cockroachdb://",
        ),
        (["server", "--port", "70000"], "70000 is not in the range"),
        (["server", "--limit", "pending=1"], "there is no 'pending'"),
        (["server", "--limit", "pending_activities=none"], "must be a whole number above 0"),
        (["server", "--engine", "matcher.rescan_seconds=-1"], "must be a number above 0"),
        (["server", "--engine", "limits=1"], "there is no 'limits'"),
        (["server", "--engine", "cluster.lease_seconds=0.5"], "lease_seconds must be 1.0 or more, not 0.5"),
        (["server", "--engine", "cluster.nodes=3"], "there is no 'nodes'"),
        (["server", "--engine", "other.cache_bytes=1"], "there is no 'other.cache_bytes'"),
        (["server", "--sqlite-pragma", "synchronous"], "'synchronous' is not NAME=VALUE"),
        (["server", "--lock-wait-seconds", "nan"], "lock_wait_seconds must be a finite number, not nan"),
        (["server", "--log-level", "loud"], "'loud' is not one of debug, info"),
        (["server", "--db", "x.db", "start-dev"], "--db before start-dev has no effect"),
        (["server", "start-dev", "--search-attribute", "Tags=Map"], "'Map' is no search attribute type"),
        (["server", "start-dev", "--dynamic-config-value", "a.b=yes"], "the value of a.b is not JSON"),
        (["server", "start-dev", "--dynamic-config-value", 'limit.maxIDLength="9"'], "must be a whole number above 0"),
        (["server", "start-dev", "--dbfilename", "x"], "No such option"),
        (["server", "start-dev", "--db", "postgresql://h/d", "-f", "x.db"], "give one of them"),
        (["server", "--postgres", "read_connections=0"], "must be a whole number above 0"),
        (["server", "--postgres", "port=5432"], "there is no 'port'"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(arguments: list[str], message: str, starts: Starts) -> None:
    assert message in refusal(*arguments)
    assert not starts


def test_the_settings_are_printed_where_asked_for(starts: Starts) -> None:
    result = CliRunner().invoke(main, ["server", "start-dev", "--log-config", "--port", "7300"])
    assert '"port": 7300' in result.stderr
    assert "serves gRPC on 127.0.0.1:7300, store: memory" in result.stdout
