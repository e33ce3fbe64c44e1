"""The argument lists with which the SDKs start a server from an existing executable, as their sources make them.

Each takes what a user of that SDK sets and returns what the process is given.
"""

from __future__ import annotations


def python(port: int, *extra: str, database: str | None = None, namespace: str = "default") -> list[str]:
    """Return what `temporalio.testing.WorkflowEnvironment.start_local` passes; sdk-core makes the list."""
    return _core(port, namespace, ("pretty", "warn"), database, None, extra)


def typescript(
    port: int, *extra: str, database: str | None = None, ui_port: int | None = None, namespace: str = "default"
) -> list[str]:
    """Return what `TestWorkflowEnvironment.createLocal` passes: sdk-core makes the list here too."""
    return _core(port, namespace, ("pretty", "warn"), database, ui_port, extra)


def go(port: int, *extra: str, database: str | None = None, namespace: str = "default") -> list[str]:
    """Return what `testsuite.StartDevServer` passes."""
    arguments = ["server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--namespace", namespace]
    arguments += ["--dynamic-config-value", "frontend.enableServerVersionCheck=false"]
    arguments += ["--log-level", "warn", "--log-format", "pretty", "--headless"]
    if database is not None:
        arguments += ["--db-filename", database]
    return [*arguments, *extra]


def _core(
    port: int,
    namespace: str,
    log: tuple[str, str],
    database: str | None,
    ui_port: int | None,
    extra: tuple[str, ...],
) -> list[str]:
    arguments = ["server", "start-dev", "--port", str(port), "--namespace", namespace, "--ip", "127.0.0.1"]
    arguments += ["--log-format", log[0], "--log-level", log[1]]
    for key in ("enableServerVersionCheck=false", "enableUpdateWorkflowExecution=true"):
        arguments += ["--dynamic-config-value", f"frontend.{key}"]
    arguments += ["--dynamic-config-value", "frontend.enableUpdateWorkflowExecutionAsyncAccepted=true"]
    if database is not None:
        arguments += ["--db-filename", database]
    arguments += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    return [*arguments, *extra]


GO_INTEGRATION_SETTINGS = [
    "--sqlite-pragma",
    "journal_mode=WAL",
    "--sqlite-pragma",
    "synchronous=OFF",
    "--dynamic-config-value",
    "frontend.workerVersioningRuleAPIs=true",
    "--dynamic-config-value",
    "worker.removableBuildIdDurationSinceDefault=1",
    "--http-port",
    "7243",
    "--dynamic-config-value",
    'callback.allowedAddresses=[{"Pattern":"*","AllowInsecure":true}]',
    "--dynamic-config-value",
    'system.refreshNexusEndpointsMinWait="0s"',
    "--dynamic-config-value",
    'component.nexusoperations.callback.endpoint.template="http://localhost:7243/namespaces/{{.NamespaceName}}/callback"',
    "--search-attribute",
    "CustomKeywordField=Keyword",
    "--search-attribute",
    "CustomDatetimeField=Datetime",
]
"""What the Go SDK's own integration tests add: a value of every kind."""
