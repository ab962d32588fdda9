"""The faults of `benchmarks.chaos`: random kills, overload, a lost MLflow server, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from crossbench.serving.client import InferenceClient

MARK = "CROSSBENCH_CHAOS"  # in the environment of all processes of a sweep
DISK_MB = 256
STORM_S = 1.0
STORM_REQUESTS = 200  # in flight
SERVER_START_S = 180.0
KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class MlflowServer:
    """An MLflow server on a free loopback port, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def start(self) -> None:
        with self._lock:
            if self._process is not None:
                return
            settings = {
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            }
            command = [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--host", "127.0.0.1", "--port", str(self.port)),
                *("--backend-store-uri", f"sqlite:///{self._folder}/mlflow.db"),
                *("--artifacts-destination", str(self._folder / "artifacts")),
            ]
            with (self._folder / "server.log").open("ab") as log:
                self._process = subprocess.Popen(
                    command, env={**os.environ, **settings}, stdout=log, stderr=log, process_group=0
                )

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            SystemExit: it does not start.
        """
        until_s = time.monotonic() + SERVER_START_S
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            time.sleep(0.2)
        sys.exit(f"the MLflow server did not start: {self._folder / 'server.log'}")

    def kill(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Disk:
    """The file system of the outputs: a small one that fills up, or none that can be filled.

    Without the right to mount one, the limit of file sizes of the processes stands in for it.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._folder, self._mark = folder, mark
        self._lock = threading.Lock()  # it is freed from another thread
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
        can_mount = shutil.which("mount") and os.geteuid() == 0
        self._is_mounted = bool(can_mount) and not subprocess.run(mount).returncode
        self.how = f"tmpfs of {DISK_MB} MB" if self._is_mounted else "limit of file sizes"

    def fill(self) -> None:
        if not self._is_mounted:
            self._limit(0)
            return
        with self._lock, (self._folder / "filler").open("ab", 0) as file:
            for size in (1 << 20, 1 << 10, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        if not self._is_mounted:
            self._limit(None)
            return
        with self._lock:
            (self._folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        if self._is_mounted:
            subprocess.run(["umount", str(self._folder)], check=True)

    def _limit(self, size: int | None) -> None:
        for process in processes_of(self._mark):
            with contextlib.suppress(psutil.Error):
                _, hard = process.rlimit(psutil.RLIMIT_FSIZE)
                process.rlimit(psutil.RLIMIT_FSIZE, (hard if size is None else size, hard))


@dataclass(frozen=True)
class Place:
    """Where the sweeps run. Their processes have `mark` in their environment."""

    root: Path
    outputs: Path
    temporary: Path
    mark: str
    server: MlflowServer
    disk: Disk

    @classmethod
    @contextlib.contextmanager
    def at(cls, root: Path) -> Iterator[Place]:
        """Make a place with a running MLflow server in the empty folder `root`."""
        outputs, temporary, store = (root / name for name in ("outputs", "tmp", "store"))
        for folder in (outputs, temporary, store):
            folder.mkdir()
        server, mark = MlflowServer(store), uuid.uuid4().hex
        disk = Disk(outputs, mark)
        try:
            server.start()
            server.wait()
            yield cls(root, outputs, temporary, mark, server, disk)
        finally:
            server.kill()
            disk.close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server.port}"


def processes_of(mark: str, module: str = "") -> list[psutil.Process]:
    """Return the processes with this mark, those of one module if it is given."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) != mark or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if not module or any(module in word for word in process.cmdline()):
                found.append(process)
    return found


def ports_of(place: Place) -> set[int]:
    """Return the ports on which the sweep's processes listen."""
    found = set()
    for process in processes_of(place.mark):
        found |= set(_ports(process))
    return found


def _ports(process: psutil.Process) -> Iterator[int]:
    with contextlib.suppress(psutil.Error):
        for item in process.net_connections("tcp"):
            if item.status == psutil.CONN_LISTEN:
                yield item.laddr.port


class Faults:
    """Strikes at random; `times` counts what was done, `struck` has it in order."""

    def __init__(self, place: Place, rng: random.Random) -> None:
        self.times: Counter[str] = Counter()
        self.struck: list[str] = []
        self._place, self._rng = place, rng
        self._pending: list[threading.Timer] = []
        self._started_s = time.monotonic()

    def strike(self, parent: psutil.Process) -> str:
        """Do one thing to the sweep of `parent`; return what was done."""
        kinds: dict[Callable[[psutil.Process], str], int] = {
            self._end_parent: 4,
            self._end_parent_twice: 1,
            self._kill_cell: 2,
            self._kill_worker: 2,
            self._kill_dashboard: 1,
            self._kill_server: 1,
            self._overload: 2,
            self._fill_disk: 2,
        }
        what = ""
        while not what:  # there may be nothing to strike of some kind
            (kind,) = self._rng.choices([*kinds], [*kinds.values()])
            what = kind(parent)
        self.times[what] += 1
        self.struck.append(f"{time.monotonic() - self._started_s:.1f} s: {what}")
        return what

    def end(self) -> None:
        """Undo what can be undone: free the disk, and start the MLflow server."""
        for timer in self._pending:
            timer.cancel()
            timer.join()
        self._pending.clear()
        self._place.disk.free()
        self._place.server.start()
        self._place.server.wait()

    def _later(self, longest_s: float, do: Callable[[], None]) -> None:
        timer = threading.Timer(self._rng.uniform(1, longest_s), do)
        timer.start()
        self._pending.append(timer)

    def _signal(self, process: psutil.Process, number: signal.Signals) -> None:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)

    def _end_parent(self, parent: psutil.Process) -> str:
        number = self._rng.choice(KILLS)
        self._signal(parent, number)
        return f"{number.name} to the parent"

    def _end_parent_twice(self, parent: psutil.Process) -> str:
        number = self._rng.choice(KILLS[1:])
        self._signal(parent, number)
        with contextlib.suppress(psutil.TimeoutExpired):
            parent.wait(self._rng.uniform(0, 1))
        self._signal(parent, number)
        return f"{number.name} twice to the parent"

    def _kill_cell(self, _: psutil.Process) -> str:
        number = self._rng.choice((signal.SIGKILL, signal.SIGTERM))
        return self._kill_one("crossbench.runner", number, "a cell process")

    def _kill_worker(self, _: psutil.Process) -> str:
        return self._kill_one("worker_process", signal.SIGKILL, "a worker process")

    def _kill_dashboard(self, _: psutil.Process) -> str:
        return self._kill_one("crossbench.dashboard", signal.SIGKILL, "the live page")

    def _kill_one(self, module: str, number: signal.Signals, name: str) -> str:
        running = processes_of(self._place.mark, module)
        if not running:
            return ""
        self._signal(self._rng.choice(running), number)
        return f"{number.name} to {name}"

    def _kill_server(self, _: psutil.Process) -> str:
        self._place.server.kill()
        self._later(8.0, self._place.server.start)
        return "SIGKILL to the MLflow server, started again later"

    def _overload(self, _: psutil.Process) -> str:
        for process in processes_of(self._place.mark, "crossbench.runner"):
            for port in _ports(process):
                asyncio.run(_storm(f"127.0.0.1:{port}"))
                return f"{STORM_REQUESTS} requests in flight for {STORM_S:g} s to the cell's server"
        return ""

    def _fill_disk(self, _: psutil.Process) -> str:
        self._place.disk.fill()
        self._later(6.0, self._place.disk.free)
        return "disk full for 1 to 6 s"


async def _storm(address: str) -> None:
    async def ask(client: InferenceClient) -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await client.score("a query", ["a passage"] * 50)

    async with InferenceClient(address) as client:
        tasks = [asyncio.create_task(ask(client)) for _ in range(STORM_REQUESTS)]
        await asyncio.wait(tasks, timeout=STORM_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
