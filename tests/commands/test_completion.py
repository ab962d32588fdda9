"""Completion of the `crossbench` command, in a real bash on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossbench.cli import COMMANDS
from crossbench.settings.completion import suggestions

PROGRAM = """#!{python}
import sys
sys.argv[0] = "crossbench"
from crossbench.cli import main
main()
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH on which `crossbench` is the code under test."""
    program = tmp_path / "crossbench"
    program.write_text(PROGRAM.format(python=sys.executable), "utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{tmp_path}:{os.environ['PATH']}"


class Terminal:
    """A bash on a pseudo-terminal."""

    def __init__(self, path: str) -> None:
        self.main, end = pty.openpty()
        self.shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=end, stdout=end, stderr=end, start_new_session=True,
            env={**os.environ, "PATH": path, "PS1": "ready> ", "TERM": "dumb"},
        )  # fmt: skip
        os.close(end)
        self.shown = ""

    def type(self, keys: str, until: str, timeout_s: float = 60) -> str:
        """Type `keys` and return what is shown after them, up to `until`."""
        start = len(self.shown)
        os.write(self.main, keys.encode())
        deadline = time.monotonic() + timeout_s
        while until not in self.shown[start:]:
            left_s = max(0.0, deadline - time.monotonic())
            assert select.select([self.main], [], [], left_s)[0], self.shown
            self.shown += os.read(self.main, 4096).decode()
        return self.shown[start:]

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.main)


@pytest.fixture
def terminal(path: str) -> Iterator[Terminal]:
    opened = Terminal(path)
    yield opened
    opened.close()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_tab_completes_in_bash(terminal: Terminal) -> None:
    terminal.type('eval "$(crossbench -sc install=bash)"; echo instal""led\n', "installed\r\n")
    assert "backend=pytorch,onnx" in terminal.type("crossbench -m backend=pytorch,on\t", "onnx")
    terminal.type("\x15crossbench suite studies=[21\t", "studies=[21_quantization")
    terminal.type("\x15crossbench sui\t", "crossbench suite")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_for_the_crossbench_command(path: str, shell: str) -> None:
    command = ["crossbench", "-sc", f"install={shell}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.rstrip().splitlines()[-1]
    assert last.startswith(("COMP_WORDBREAKS", "complete"))
    assert " crossbench" in last
    assert "python" not in last


def known(line: str) -> list[str]:
    """Answer as Hydra does, from a few words."""
    typed = line.split(" ")[-1]
    words = ["backend=onnx", "backend=openvino", "batch=", "server.port=", "server._target_="]
    return [word for word in words if word.startswith(typed)]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("crossbench se", ["selfcheck", "serve", "server.port="]),
        ("crossbench  bat", ["batch="]),
        ("crossbench -m backend=noop,on", ["backend=noop,onnx"]),
        ("crossbench serve backend=o", ["backend=onnx", "backend=openvino"]),
        ("crossbench compare out", []),  # the shell completes folders
        ("crossbench suite studies=[20", ["studies=[20_stages"]),
        ("crossbench suite studies=[20_stages,21", ["studies=[20_stages,21_quantization"]),
        ("crossbench --he", ["--help"]),
    ],
)
def test_suggestions(line: str, found: list[str]) -> None:
    assert suggestions(line, COMMANDS, known) == found
