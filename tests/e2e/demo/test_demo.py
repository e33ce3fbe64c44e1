"""`make demo` as a stranger runs it: the story is told to its end, and an untrue one is not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from examples.orders import story
from examples.orders.__main__ import tell_in
from examples.orders.stage import NotAsTold, Stage, check

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.process
@pytest.mark.slow
def test_the_story_is_told_to_its_end(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "examples.orders", "--directory", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "All of it as told" in told.stdout
    assert "the bank does not answer" in told.stdout
    assert "Receipt(order_id='1001', total_cents=4250" in told.stdout
    began = [int(pid) for pid in re.findall(r": process (\d+)\]", told.stdout)]
    assert len(began) == 7
    assert not [pid for pid in began if is_child_of_the_story(pid, tmp_path)]


def is_child_of_the_story(pid: int, directory: Path) -> bool:
    """Say whether a process id still belongs to a process that the story started."""
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return False
    return str(directory) in command or "examples.orders" in command


def test_what_is_not_as_told_ends_the_story_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def another_story(stage: Stage) -> None:
        (stage.directory / "server.log").write_text("something went wrong\n")
        check("the answer", expected=42, seen=41)

    monkeypatch.setattr(story, "tell", another_story)
    assert tell_in(tmp_path) == 1
    errors = capsys.readouterr().err
    assert "NOT AS TOLD: the answer: expected 42, saw 41." in errors
    assert "something went wrong" in errors


async def test_a_process_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with Stage(tmp_path) as stage:
        stage.start_worker("no-such-role")

        async def nothing() -> None:
            return None

        with pytest.raises(NotAsTold, match=r"the no-such-role process ended, exit code 2"):
            await stage.until("something happens", nothing)
    assert "invalid choice" in stage.logs()
