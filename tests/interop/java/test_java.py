"""The Java SDK against a server; without `mvn` and a recent enough `java` on the PATH it is skipped, with the reason.

Maven fetches the pinned version once and keeps it in its own cache. Where it cannot, as on a machine whose network has
no Maven registry, the SDK is as good as absent.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.interop.programs import expect_all_scenarios_to_go_well, skip_if_older, tool, version_in
from tests.interop.python.harness import Server, running

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).parent / "program"
MAIN = "interop.Program"
SCENARIO = re.compile(r'^    scenarios\.put\("', re.MULTILINE)
OLDEST_JAVA = (11,)
NOT_FETCHED = re.compile(r"Could not (?:transfer|find) artifact|could not be resolved|Could not resolve dependencies")


@pytest.fixture(scope="session")
def java() -> str:
    """The path of `java`."""
    java = tool("java", "mvn")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    skip_if_older("java", version_in(told), OLDEST_JAVA)
    return java


@pytest.fixture(scope="session")
def class_path(java: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the built program and what it needs are."""
    folder = tmp_path_factory.mktemp("java")
    shutil.copytree(PROGRAM, folder, dirs_exist_ok=True)
    listed = folder / "class-path"
    command = ["mvn", "-q", "-B", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={listed}"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode:
        if NOT_FETCHED.search(built.stdout):
            pytest.skip(f"Maven cannot fetch the SDK: {built.stdout.strip()[:500]}")
        pytest.fail(f"Maven cannot build the program: {built.stdout}{built.stderr}")
    return os.pathsep.join((str(folder / "target" / "classes"), listed.read_text(encoding="utf-8").strip()))


async def test_the_java_sdk(java: str, class_path: str, tmp_path: Path) -> None:
    source = PROGRAM / "src" / "main" / "java" / "interop" / "Program.java"
    count = len(SCENARIO.findall(source.read_text(encoding="utf-8")))
    with running(Server(tmp_path / "server.log")) as server:
        await server.connect()
        await expect_all_scenarios_to_go_well([java, "-cp", class_path, MAIN, server.address], count)
