"""Measure the overhead of commands, cells and sweeps: the time not spent measuring.

    python -m benchmarks.overhead [--old-commit f59be2c] [--rounds 3]

Each command is run in turn from this checkout and from a worktree of an older commit, with the same
Python: importing the package, `--help`, a refused typo, a single cell of the noop backend that
measures for one second, and sweeps of two and of four such cells. The overhead of a further cell is
half of the difference between four and two cells, minus the second that it measures. A cell starts
when its configuration is written to its folder. Each checkout has its own cache and MLflow store,
which a first round that is not counted fills. It writes outputs/overhead.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.race import REPO, machine
from crossbench.measure import catalogue
from crossbench.report.tables import markdown_table
from crossbench.settings.places import outputs_dir

MEASURED_S = 1.0
CELL = ("backend=noop", "requests=1000000", f"max_seconds={MEASURED_S}")
BARE = ("dashboard=none", "tracker=none")
DEFAULTS = ("dashboard.port=0",)  # dashboard=web and tracker=mlflow, on a free port
# The memory metrics that every cell has, on any machine
MEMORY = tuple(
    metric.name
    for metric in catalogue.METRICS
    if metric.family in ("memory", "harness")
    and metric not in (catalogue.DEVICE_PEAK_MB, catalogue.MODEL_MB)
)
BATCHES = (8, 16, 24, 32)

Figures = dict[str, list[float]]


@dataclass(frozen=True)
class Tree:
    """A checkout from which commands are run; `folder` has its cache and outputs."""

    name: str
    checkout: Path
    folder: Path

    def run(self, *arguments: str, status: int = 0) -> float:
        """Run `python ARGUMENTS` and return its wall time in seconds.

        Raises:
            SystemExit: the exit status is not `status`.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.checkout),
            "CROSSBENCH_CACHE": str(self.folder / "cache"),
        }
        self.folder.mkdir(exist_ok=True)
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        wall_s = time.perf_counter() - started_s
        if done.returncode != status:
            sys.exit(f"{self.name}: python {' '.join(arguments)}: {done.stdout}\n{done.stderr}")
        return wall_s

    def cell(self, services: Sequence[str]) -> dict[str, float]:
        """Run a single cell and return its overhead in seconds and its memory metrics."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "cell"
        outputs = f"outputs_dir={self.folder / 'outputs'}"
        wall_s = self.run(
            *("-m", "crossbench", *CELL, *services, outputs, f"hydra.run.dir={folder}")
        )
        metrics = json.loads((folder / "result.json").read_text("utf-8"))["metrics"]
        return {"overhead_s": wall_s - MEASURED_S, **{name: metrics[name] for name in MEMORY}}

    def sweep(self, cells: int, services: Sequence[str]) -> tuple[float, float]:
        """Run a sweep and return its wall time and the time until its first cell starts."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "sweep"
        batches = ",".join(map(str, BATCHES[:cells]))
        outputs = f"outputs_dir={self.folder / 'outputs'}"
        overrides = (*CELL, f"batch={batches}", *services, outputs, f"hydra.sweep.dir={folder}")
        started_s = time.time()
        wall_s = self.run("-m", "crossbench", "-m", *overrides)
        written = [path.stat().st_mtime for path in (folder / "0").iterdir()]
        return wall_s, min(written) - started_s


@contextlib.contextmanager
def worktree(commit: str, path: Path) -> Iterator[Path]:
    """Check out an older commit at `path`, and remove it afterwards."""
    git = ("git", "-C", str(REPO), "worktree")
    subprocess.run([*git, "add", "--detach", str(path), commit], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True, capture_output=True)


def measure(tree: Tree) -> dict[str, float]:
    """Measure each value once: seconds, and the memory and cores of a single cell."""
    taken = {
        "import crossbench": tree.run("-c", "import crossbench"),
        "--help": tree.run("-m", "crossbench", "--help"),
        "a refused typo": tree.run("-m", "crossbench", "bacth=8", status=1),
    }
    for services, label in ((BARE, "no services"), (DEFAULTS, "dashboard and MLflow")):
        single = tree.cell(services)
        taken[f"overhead of a single cell ({label})"] = single.pop("overhead_s")
        if services is BARE:
            taken |= single
        two_s, first_of_two_s = tree.sweep(2, services)
        four_s, first_of_four_s = tree.sweep(4, services)
        until_first_s = (first_of_two_s + first_of_four_s) / 2
        taken[f"sweep, time until its first cell starts ({label})"] = until_first_s
        taken[f"sweep of two cells, total time ({label})"] = two_s
        further_s = (four_s - two_s) / 2 - MEASURED_S
        taken[f"overhead of a further cell of a sweep ({label})"] = further_s
    return taken


def table(taken: Mapping[str, Figures]) -> str:
    """Return a table with the median and range of both checkouts, and the ratio old / new."""
    rows = []
    old, new = taken.values()
    for name in new:
        times = [a / b for a, b in zip(old[name], new[name], strict=True) if b > 0]
        spread = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})" if times else ""
        rows.append((name, _spread(old[name]), _spread(new[name]), spread))
    return markdown_table(("seconds; MB of memory/…", *taken, "old / new"), rows, "lrrr")


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old-commit", default="f59be2c")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crossbench-overhead-") as name:
        folder = Path(name)
        with worktree(given.old_commit, folder / "checkout") as old:
            trees = [Tree("old", old, folder / "old"), Tree("new", REPO, folder / "new")]
            taken: dict[str, Figures] = {tree.name: {} for tree in trees}
            for turn in range(-1, given.rounds):
                # Reverse the order in every second round, so that a slow drift cancels out
                for tree in trees[:: -1 if turn % 2 else 1]:
                    print(f"round {turn + 1}: {tree.name}", file=sys.stderr, flush=True)
                    for key, value in measure(tree).items():
                        if turn >= 0:
                            taken[tree.name].setdefault(key, []).append(value)
    text = "\n\n".join(
        [
            f"{machine()}; old is {given.old_commit}, {given.rounds} rounds, median and range",
            table(taken),
        ]
    )
    print(text)
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "overhead.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
