"""The console script, and the version that every command prints."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from importlib.util import find_spec

import pytest

from crossbench.cli import COMMANDS

SCRIPT = "import sys; from crossbench.cli import main; sys.argv[0] = 'crossbench'; main()"


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_script_is_installed() -> None:
    (entry,) = entry_points(group="console_scripts", name="crossbench")
    assert entry.value == "crossbench.cli:main"


def test_every_command_is_a_module() -> None:
    assert all(find_spec(f"crossbench.{command}") for command in COMMANDS)


@pytest.mark.parametrize("command", [[], ["serve"], ["report"]], ids=" ".join)
def test_a_command_is_a_subcommand(command: list[str]) -> None:
    module = ".".join(["crossbench", *command])
    as_module = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=60
    )
    done = script(*command, "--help")
    assert (done.returncode, done.stdout) == (0, as_module.stdout)
    assert module in done.stdout or f"python -m {module}" in done.stdout


@pytest.mark.parametrize("module", ["crossbench", "crossbench.serve", "crossbench.suite"])
def test_version_prints_crossbench_s_own_version(module: str) -> None:
    command = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"crossbench {version('crossbench')}\n"


def test_an_unknown_command_is_an_error() -> None:
    done = script("serv")
    assert done.returncode == 1
    assert done.stderr == "crossbench: there is no command serv. Did you mean serve?\n"
