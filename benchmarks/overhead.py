"""Minutes not spent measuring: what a command, a cell and a sweep cost beside their measurements.

    python -m benchmarks.overhead [--old-commit f59be2c] [--rounds 3]

Each command is run in turn from this tree and from a worktree of an older commit, by the same
Python: importing the package, `--help`, a refused typo, a lone cell of the noop backend that
measures one second, and sweeps of two and of four such cells. A further cell's overhead is half of
what four cells take longer than two, less the second that it measures. A cell starts when its
configuration lies in its folder. Every tree has a cache and an MLflow store of its own, which a
first round, left out of the numbers, fills. Writes outputs/overhead.md.
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
DEFAULTS = ("dashboard.port=0",)  # dashboard=web and tracker=mlflow, on a port that is free
# Of what every cell has, on any machine
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
    """A checkout to run commands from, with a cache and outputs of its own under `place`."""

    name: str
    checkout: Path
    place: Path

    def run(self, *words: str, status: int = 0) -> float:
        """Wall seconds of `python WORDS`.

        Raises:
            SystemExit: it ended with another status than `status`.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.checkout),
            "CROSSBENCH_CACHE": str(self.place / "cache"),
        }
        self.place.mkdir(exist_ok=True)
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
        )
        wall_s = time.perf_counter() - started_s
        if done.returncode != status:
            sys.exit(f"{self.name}: python {' '.join(words)}: {done.stdout}\n{done.stderr}")
        return wall_s

    def cell(self, services: Sequence[str]) -> dict[str, float]:
        """A lone cell: seconds beside its measurement, and its own account of its memory."""
        folder = Path(tempfile.mkdtemp(dir=self.place)) / "cell"
        outputs = f"outputs_dir={self.place / 'outputs'}"
        words = ("-m", "crossbench", *CELL, *services, outputs, f"hydra.run.dir={folder}")
        wall_s = self.run(*words)
        metrics = json.loads((folder / "result.json").read_text("utf-8"))["metrics"]
        return {"overhead_s": wall_s - MEASURED_S, **{name: metrics[name] for name in MEMORY}}

    def sweep(self, cells: int, services: Sequence[str]) -> tuple[float, float]:
        """Wall seconds of a sweep of so many cells, and seconds until its first cell starts."""
        folder = Path(tempfile.mkdtemp(dir=self.place)) / "sweep"
        batches = ",".join(map(str, BATCHES[:cells]))
        outputs = f"outputs_dir={self.place / 'outputs'}"
        words = (*CELL, f"batch={batches}", *services, outputs, f"hydra.sweep.dir={folder}")
        started_s = time.time()
        wall_s = self.run("-m", "crossbench", "-m", *words)
        written = [path.stat().st_mtime for path in (folder / "0").iterdir()]
        return wall_s, min(written) - started_s


@contextlib.contextmanager
def worktree(commit: str, place: Path) -> Iterator[Path]:
    """A checkout of an older commit, which is gone afterwards."""
    git = ("git", "-C", str(REPO), "worktree")
    subprocess.run([*git, "add", "--detach", str(place), commit], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run([*git, "remove", "--force", str(place)], check=True, capture_output=True)


def measure(tree: Tree) -> dict[str, float]:
    """Each figure once: seconds, and the lone cell's MB and cores."""
    taken = {
        "import crossbench": tree.run("-c", "import crossbench"),
        "--help": tree.run("-m", "crossbench", "--help"),
        "a refused typo": tree.run("-m", "crossbench", "bacth=8", status=1),
    }
    for services, told in ((BARE, "no services"), (DEFAULTS, "page and MLflow")):
        lone = tree.cell(services)
        taken[f"lone cell, beside its measurement ({told})"] = lone.pop("overhead_s")
        if services is BARE:
            taken |= lone
        two_s, first_s = tree.sweep(2, services)
        four_s, also_first_s = tree.sweep(4, services)
        taken[f"sweep, until its first cell starts ({told})"] = (first_s + also_first_s) / 2
        taken[f"sweep of two cells, whole ({told})"] = two_s
        taken[f"sweep, a further cell, beside its measurement ({told})"] = (
            four_s - two_s
        ) / 2 - MEASURED_S
    return taken


def table(taken: Mapping[str, Figures]) -> str:
    """Medians of both trees with the least and largest round, and old over new."""
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
        place = Path(name)
        with worktree(given.old_commit, place / "checkout") as old:
            trees = [Tree("old", old, place / "old"), Tree("new", REPO, place / "new")]
            taken: dict[str, Figures] = {tree.name: {} for tree in trees}
            for turn in range(-1, given.rounds):
                # There and back, so that a machine that slowly changes favours neither
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
