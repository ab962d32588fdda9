"""A real cell beside busy loops, in a terminal of 80 columns; whose processes are the run's."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from crossbench.measure.harness import HarnessMeter
from crossbench.measure.probes import CpuMeter
from crossbench.models.folder import ModelFolder
from crossbench.results import Flag, Status, load_result
from crossbench.runner.audit import harness_meter
from crossbench.runner.event_stream import EventStream
from crossbench.serving.client import InferenceClient
from crossbench.tracking.mlflow_format import cell_tags
from tests.helpers.commands import the_sweep
from tests.helpers.plans import plan_of
from tests.helpers.serving import noop, serving

COLUMNS = 80
CELL = (
    *("backend=noop", "stop=fixed", "max_seconds=4", "quality=none", "warmup_requests=1"),
    *("tracker=none", "dashboard=none"),
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class BusyCores:
    """Keeps all cores busy with processes that are no part of a cell's run."""

    def __init__(self) -> None:
        self._loops: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the processes, unless they run already."""
        command = [sys.executable, "-c", "while True: pass"]
        if not self._loops:
            self._loops = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]

    def stop(self) -> None:
        for loop in self._loops:
            loop.kill()
            loop.wait()
        self._loops = []


def beside_busy_cores(command: list[str], environment: dict[str, str]) -> str:
    """Run a cell in a terminal, beside busy loops while it measures; return what it printed."""
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {**environment, "TERM": "xterm", "NO_COLOR": "1"}
    shown, busy = b"", BusyCores()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal, env=environment
    ) as process:
        os.close(terminal)
        try:
            while part := os.read(ours, 65536):
                if b"measuring" in part:
                    busy.start()
                if b"report" in part:
                    busy.stop()
                shown += part
        except OSError:  # Linux: the other end is closed
            pass
        finally:
            busy.stop()
    os.close(ours)
    assert process.returncode == 0, shown.decode()
    return ESCAPES.sub("", shown.decode())


def test_a_disturbed_cell_says_so(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "crossbench", *CELL, f"outputs_dir={tmp_path}"]
    shown = beside_busy_cores(command, environment)

    folder = the_sweep(tmp_path) / "0"
    result = load_result(folder)
    assert result.status is Status.FINISHED
    reason = result.flags[Flag.DISTURBED]
    found = re.fullmatch(r"other processes used ([\d.]+) of (\d+) CPU cores( for .*)?\.", reason)
    assert found
    assert float(found[1]) >= 0.3 * int(found[2])
    (warning,) = (text for text in result.warnings if text.startswith("Disturbed: "))
    assert reason in warning
    assert reason[1:] in (folder / "report.md").read_text("utf-8")  # there with a capital letter
    assert "## Harness" in (folder / "report.md").read_text("utf-8")
    assert result.metrics["harness/cores_used_by_others"] > 0.3
    assert cell_tags(result)["crossbench.flags"] == "disturbed"

    assert "\\x1b" not in shown  # the terminal obeys what draws the bar
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown)]
    told = [line for line in lines if "disturbed now: other processes used" in line]
    assert len(told) == 1  # while it was measured, once
    progress = re.compile(r"disturbed, [\d,.]+ pairs/s, p50 [\d,.]+ ms$")
    bars = [line for line in lines if progress.search(line)]
    assert bars
    assert max(map(len, bars)) <= COLUMNS


def test_a_server_on_this_machine_that_ran_before_does_not_disturb_its_cell(
    seeded_model: ModelFolder, tmp_path: Path
) -> None:
    """This process has the server and works; the run is a process that does nothing."""
    plan = plan_of("target=remote", "server=remote", "server.address=here:1", cache_dir=tmp_path)

    async def others(run: int) -> tuple[float, float, float]:
        """Return the cores used by others with and without the audit of the server, and by us."""
        async with serving([noop(seeded_model)]) as address, InferenceClient(address) as client:
            audited = harness_meter(client, plan, EventStream(io.StringIO(), run))
            plain, cpu = HarnessMeter(run), CpuMeter()
            async with plain.watch([]), audited.watch([]):
                cpu.start()
                end_s = time.perf_counter() + 0.7
                while time.perf_counter() < end_s:
                    sum(range(1000))
                own = cpu.cores_used()
        found = (meter.metrics()["harness/cores_used_by_others"] for meter in (audited, plain))
        return (*found, own)

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as run:
        audited, plain, own = asyncio.run(others(run.pid))
        run.kill()
    assert own > 0.3  # on a busy machine, this process gets only a part of a core
    assert plain - audited > 0.7 * own
