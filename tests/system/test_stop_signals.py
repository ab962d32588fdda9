"""Stop signals are never lost, and what must be written is written first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from crossbench.system.stop_signals import (
    finish_first,
    raise_if_stopped,
    stop_like_ctrl_c,
    stopped_by,
)


class InterruptedWhenCollected:
    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        signal.raise_signal(self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_whose_exception_python_drops_is_sent_again(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measured: a SIGTERM during WeakSet._remove, and the sweep went on."""
    with stop_like_ctrl_c():
        InterruptedWhenCollected(number)  # Python drops the KeyboardInterrupt of a finaliser
        with pytest.raises(KeyboardInterrupt):
            threading.Event().wait(60)
        assert stopped_by()
        with pytest.raises(KeyboardInterrupt):
            raise_if_stopped()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (signal.SIGINT, "Ctrl-C"),
        (signal.SIGTERM, "SIGTERM"),
        (signal.SIGHUP, "SIGHUP (its terminal was closed)"),
    ],
)
def test_the_signal_is_named_until_the_next_command(number: signal.Signals, name: str) -> None:
    with stop_like_ctrl_c():
        assert stopped_by() == ""
        raise_if_stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert stopped_by() == name
    with stop_like_ctrl_c():
        assert stopped_by() == ""


def signals_in_a_block(*numbers: signal.Signals) -> list[str]:
    """Return what a block that must end first has done when these signals arrive in it."""
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), finish_first():  # noqa: PT012
        for number in numbers:
            signal.raise_signal(number)
            done.append(number.name)
    return done


def test_a_first_signal_waits_for_the_end_of_the_block_and_a_second_does_not() -> None:
    with stop_like_ctrl_c():
        assert signals_in_a_block(signal.SIGTERM) == ["SIGTERM"]
        assert signals_in_a_block(signal.SIGTERM) == []
    with stop_like_ctrl_c():
        assert signals_in_a_block(signal.SIGINT, signal.SIGHUP) == ["SIGINT"]
    with stop_like_ctrl_c(), pytest.raises(ZeroDivisionError), finish_first():
        raise ZeroDivisionError


def test_signals_that_the_process_was_started_to_ignore_stay_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from crossbench.system.stop_signals import stop_like_ctrl_c, stopped_by\n"
        "with stop_like_ctrl_c():\n"
        "    signal.raise_signal(signal.SIGHUP)\n"
        "    print(repr(stopped_by()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "''\n"


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback(tmp_path: Path) -> None:
    """The first library that it imports sends the signal here."""
    (tmp_path / "hydra.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join((str(tmp_path), *filter(None, sys.path)))
    done = subprocess.run(
        [sys.executable, "-m", "crossbench"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
