"""`perdure cluster` as it is typed; what a cluster says of itself is in tests/server/engine/cluster/test_status.py."""

from __future__ import annotations

import socket

from click.testing import CliRunner

from perdure.cli.main import main


def test_an_address_without_a_server_is_told_in_one_line() -> None:
    with socket.socket() as taken:
        # Nobody listens there, and nobody else can meanwhile.
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = CliRunner().invoke(main, ["cluster", "status", "--address", address])
    [line] = result.output.splitlines()
    assert (result.exit_code, line.startswith(f"Error: {address} does not answer: failed to connect")) == (1, True)
    assert line.endswith("Start a server there, or name another with --address")
