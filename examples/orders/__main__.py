"""Tell the story of an order: `python -m examples.orders`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError

from examples.orders import story
from examples.orders.stage import NotAsTold, Stage, say

STORY_SECONDS = 60.0


def main() -> int:
    """Tell the story and return the exit code: 0 if all was as told."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.orders", description="Run an order through a bug, a dead worker and a dead server."
    )
    parser.add_argument("--directory", type=Path, help="keep the database and the logs here (default: keep nothing)")
    arguments = parser.parse_args()
    if arguments.directory is not None:
        arguments.directory.mkdir(parents=True, exist_ok=True)
        return tell_in(arguments.directory.resolve())
    with tempfile.TemporaryDirectory(prefix="perdure-orders-") as directory:
        return tell_in(Path(directory).resolve())


def tell_in(directory: Path) -> int:
    """Tell the story with the database in a directory and return the exit code."""
    began = time.monotonic()
    stage = Stage(directory)
    try:
        with stage:
            asyncio.run(asyncio.wait_for(story.tell(stage), STORY_SECONDS))
    except TimeoutError:
        return not_as_told(stage, f"the story took longer than {STORY_SECONDS:.0f} seconds.")
    except (NotAsTold, RPCError, WorkflowFailureError) as difference:
        return not_as_told(stage, str(difference))
    except KeyboardInterrupt:
        print("\nInterrupted; every process of the story has been ended.", file=sys.stderr)
        return 130
    say("")
    say(f"All of it as told, in {time.monotonic() - began:.0f} seconds.")
    return 0


def not_as_told(stage: Stage, difference: str) -> int:
    """Print what was different, and the logs, and return the exit code."""
    print(f"\n{stage.logs()}\n\nNOT AS TOLD: {difference}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
