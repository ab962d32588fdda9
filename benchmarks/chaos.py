"""Disturb sweeps at random until the time is up, let them finish, and check that nothing is lost.

    python -m benchmarks.chaos [--seconds 600] [--seed 7] [--every 8] [OVERRIDES ...]

A sweep of four noop cells is started, and resumed until it is complete; then comes the next one.
Its workers are processes, and it logs to an MLflow server. At random moments, on average every
`--every` seconds, a fault of `benchmarks.chaos_faults` strikes. When the time is up, the last sweep
finishes undisturbed and `crossbench.sync` uploads what MLflow lacks. Each cell must then be
finished exactly once, in its folder and in MLflow, and nothing may be left: no process, no port, no
temporary folder, no half-written file. It prints a table, writes it to outputs/chaos.md, and ends
with status 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.chaos_checks import half_written, is_complete, lost_in_mlflow, lost_on_disk
from benchmarks.chaos_faults import MARK, Faults, Place, ports_of, processes_of
from benchmarks.race import REPO, machine
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir
from crossbench.settings.stored_plan import PLAN_FILE
from crossbench.wording import counted

CELLS = (
    "batch=2,4", "concurrency=1,2", "backend=noop", "max_seconds=4", "stop=fixed", "quality=none",
    "warmup_requests=1", "warmup_max_seconds=0.2", "dataset.queries=4", "pool=processes",
    "pool.workers=2", "dashboard.port=0", "tracker.timeout_s=5", "retries=1000",
)  # fmt: skip
END_S = 20.0  # for the processes of a killed parent to end
STOP_S = 90.0  # for a parent to end after a signal, in the worst case after writing its reports
LONGEST_S = 300.0  # an attempt that takes longer hangs
FINAL_ATTEMPTS = 3


class Chaos:
    """Runs sweeps in `place` while faults strike; collects what was found to be wrong."""

    def __init__(self, place: Place, faults: Faults, overrides: Sequence[str]) -> None:
        self.found: list[str] = []
        self.ends: Counter[str] = Counter()  # of the attempts
        self.sweeps: list[Path] = []
        self._place, self._faults, self._overrides = place, faults, overrides
        self._ports: set[int] = set()

    def run(self, seconds: float, every_s: float, rng: random.Random) -> None:
        """Disturb one sweep after the other for `seconds`, then let the last one finish."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            folder = self._place.outputs / f"sweep-{len(self.sweeps)}"
            self.sweeps.append(folder)
            is_done = False
            while not is_done and time.monotonic() < until_s:
                is_done = self._attempt(folder, until_s, every_s, rng)
            what = "complete" if is_done else "the time is up"
            print(f"{folder.name}: {what}", file=sys.stderr, flush=True)
        self._faults.end()
        for _ in range(FINAL_ATTEMPTS):
            if self._attempt(self.sweeps[-1], until_s, every_s, rng):
                break
        self._sync()
        for folder in self.sweeps:
            self.found += lost_on_disk(folder)
        self.found += lost_in_mlflow(self._place.uri, self.sweeps)
        self.found += half_written(self._place.outputs)
        self.found += self._held_ports()

    def _attempt(self, folder: Path, until_s: float, every_s: float, rng: random.Random) -> bool:
        """Start or resume the sweep, with faults until `until_s`, and wait until it has ended.

        Returns whether it has reached its end with all cells.
        """
        log = self._place.root / "parent.log"
        with log.open("wb") as output:
            words = self._command("crossbench", "-m", *self._words(folder))
            parent = psutil.Popen(
                words, env=self._environment(), stdout=output, stderr=output,
                stdin=subprocess.DEVNULL, process_group=0,
            )  # fmt: skip
        started_s = time.monotonic()
        told_s: float | None = None  # when it was told to end
        while True:
            try:
                status = parent.wait(rng.expovariate(1 / every_s))
                break
            except psutil.TimeoutExpired:
                now_s = time.monotonic()
            if now_s < until_s:
                self._ports |= ports_of(self._place)
                name = self._faults.strike(parent)
                if name.startswith("SIG") and name.endswith("parent"):
                    told_s = told_s or now_s
            hangs = told_s is not None and now_s - told_s > STOP_S
            if hangs or now_s - started_s > LONGEST_S:
                since = f"{now_s - (told_s or started_s):.0f} s"
                self._find(f"the parent still ran {since} after it was told to end", log, folder)
                parent.kill()
        self._check_end(status, log, folder)
        return not status and is_complete(folder)

    def _check_end(self, status: int, log: Path, folder: Path) -> None:
        ended = f"status {status}" if status >= 0 else signal.Signals(-status).name
        self.ends[ended] += 1
        told = log.read_text("utf-8", "replace")
        # A signal ends a process that has not begun, or has ended its work, in the usual way
        is_at_an_end = not told or "interrupted" in told or "report:" in told
        if status not in (0, 1, 130, -signal.SIGKILL) and not (status < 0 and is_at_an_end):
            self._find(f"the parent ended with {ended}", log, folder)
        if "Traceback" in told:
            self._find("the parent printed a traceback", log, folder)
        _, alive = psutil.wait_procs(processes_of(self._place.mark), timeout=END_S)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                self._find(f"still running {END_S:g} s later: {process.cmdline()}", log, folder)
                process.kill()
        for path in self._place.temporary.iterdir():
            self._find(f"temporary folder left: {path.name}", log, folder)
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _find(self, what: str, log: Path, folder: Path) -> None:
        """Note a fault, and keep the log and what struck before."""
        kept = outputs_dir() / f"chaos-{len(self.found)}.log"
        struck = "\n".join(self._faults.struck[-8:])
        kept.write_text(f"{what}\n{folder.name}; before:\n{struck}\n\n{log.read_text()}", "utf-8")
        self.found.append(f"{what} (see outputs/{kept.name})")
        print(f"FOUND: {self.found[-1]}", file=sys.stderr, flush=True)

    def _words(self, folder: Path) -> list[str]:
        if (folder / PLAN_FILE).exists():
            return [f"resume={folder}"]
        return [
            *CELLS, f"hydra.sweep.dir={folder}", f"outputs_dir={self._place.outputs}",
            f"tracker.uri={self._place.uri}", *self._overrides,
        ]  # fmt: skip

    def _sync(self) -> None:
        words = [f"tracker.uri={self._place.uri}", f"outputs_dir={self._place.outputs}"]
        for turn in ("first", "second"):
            done = subprocess.run(
                self._command("crossbench.sync", *words),
                env=self._environment(), capture_output=True, text=True,
            )  # fmt: skip
            print(done.stdout, file=sys.stderr, flush=True)
            if done.returncode:
                self.found.append(f"the {turn} sync ended with {done.returncode}: {done.stderr}")
        if " 0 uploaded" not in done.stdout:
            self.found.append(f"the second sync uploaded something: {done.stdout}")

    def _held_ports(self) -> Iterator[str]:
        held = {
            item.laddr.port
            for item in psutil.net_connections("tcp")
            if item.status == psutil.CONN_LISTEN
        }
        yield from (f"port {port} is still held" for port in sorted(self._ports & held))

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPO),
            "TMPDIR": str(self._place.temporary),
            MARK: self._place.mark,
        }

    def _command(self, module: str, *words: str) -> list[str]:
        return [sys.executable, "-m", module, *words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--every", type=float, default=8.0, help="seconds between faults, mean")
    parser.add_argument("overrides", nargs="*", help="for example max_seconds=1")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with TemporaryDirectory(prefix="chaos-") as name, Place.at(Path(name)) as place:
        faults = Faults(place, rng)
        chaos = Chaos(place, faults, given.overrides)
        try:
            chaos.run(given.seconds, given.every, rng)
        finally:
            faults.end()
            for process in processes_of(place.mark):
                process.kill()
    rows = [(what, str(times)) for what, times in sorted(faults.times.items())]
    ends = ", ".join(f"{end} {times} times" for end, times in sorted(chaos.ends.items()))
    facts = [
        f"{given.seconds:g} s, seed {given.seed}, {counted(len(chaos.sweeps), 'sweep')} of 4 "
        f"cells, {chaos.ends.total()} starts ({ends}); disk: {place.disk.how}",
        *(f"NOT AS IT SHOULD BE: {line}" for line in chaos.found),
        f"lost: {counted(len(chaos.found), 'thing')}" if chaos.found else "lost: nothing",
    ]
    text = "\n\n".join((machine(), markdown_table(("what was done", "times"), rows, "lr"), *facts))
    print(text)
    (outputs_dir() / "chaos.md").write_text(text + "\n", "utf-8")
    sys.exit(bool(chaos.found))


if __name__ == "__main__":
    main()
