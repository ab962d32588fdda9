"""Stop signals are never lost, and what must be written is written first."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

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
        collected = InterruptedWhenCollected(number)
        with pytest.raises(KeyboardInterrupt):
            del collected  # Python drops the KeyboardInterrupt of a finaliser
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


def test_a_first_signal_waits_for_the_end_of_the_block_and_a_second_does_not() -> None:
    done = []
    with stop_like_ctrl_c():
        with pytest.raises(KeyboardInterrupt), finish_first():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")
        with pytest.raises(KeyboardInterrupt), finish_first():
            signal.raise_signal(signal.SIGTERM)
            done.append("not this")
    with stop_like_ctrl_c():
        with pytest.raises(KeyboardInterrupt), finish_first():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("nor this")
        with pytest.raises(ZeroDivisionError), finish_first():
            1 / 0  # noqa: B018
    assert done == ["all of it"]


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
