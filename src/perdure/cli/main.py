"""The `perdure` command: the root of all command groups and the console script's entry.

Start-up time is part of what it promises, so this module must never import what only one command needs.
"""

from __future__ import annotations

import click

import perdure
from perdure.cli.cluster import cluster
from perdure.cli.db import db_commands
from perdure.cli.global_options import global_options
from perdure.cli.server import server


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(perdure.__version__, prog_name="perdure", message="%(prog)s %(version)s")
@global_options
def main() -> None:
    """Run Perdure, a durable execution engine."""


main.add_command(server)
main.add_command(cluster)
main.add_command(db_commands)
