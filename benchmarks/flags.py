"""Measure how often the flags `disturbed` and `client-bound` are wrong.

    python -m benchmarks.flags [--cells 20] [--seconds 3] [OVERRIDES ...]

Real cells of backend=noop and of backend=onnx run in turn, quiet and beside two busy loops. Others
may use the machine during a cell that is meant to be quiet. Their CPU time is therefore measured
here too, from outside the cell and by another method, from the first to the last second of its
process, and a second row has the quiet cells without those. Two more rows divide the quiet cells by
their flags: if the flags are right, the throughput of the flagged ones is lower or varies more.
OVERRIDES are passed to crossbench. It writes outputs/flags.md.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import psutil

from benchmarks.cells import run_cell
from benchmarks.race import machine
from crossbench.measure import catalogue
from crossbench.report.tables import markdown_table
from crossbench.results import Flag, RunResult
from crossbench.settings.places import outputs_dir
from crossbench.wording import number, percent

BACKENDS = ("noop", "onnx")
FLAGS = (Flag.DISTURBED, Flag.CLIENT_BOUND)
BUSY_LOOPS = 2
# Others use less of a quiet machine during a cell, its start included. This is the share of one
# core above which a cell is not counted as quiet.
QUIET_CORES = 0.1


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell, and the cores that processes used which are neither the cell's nor busy loops."""

    backend: str
    beside_loops: bool
    result: RunResult
    foreign_cores: float


@contextlib.contextmanager
def busy_loops(count: int) -> Iterator[None]:
    """Keep `count` cores busy with processes of this benchmark, not of the cell's run."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measured(backend: str, beside_loops: bool, overrides: Sequence[str]) -> Cell:
    """Run one cell, and measure what others used meanwhile.

    All processes of this benchmark have ended before the second reading, so the kernel's sum of
    their CPU times is complete.
    """
    started_s, busy_s, own_s = time.perf_counter(), _machine_s(), _own_s()
    with busy_loops(BUSY_LOOPS if beside_loops else 0):
        result = run_cell([f"backend={backend}", *overrides])
    foreign_s = (_machine_s() - busy_s) - (_own_s() - own_s)
    return Cell(backend, beside_loops, result, foreign_s / (time.perf_counter() - started_s))


def _machine_s() -> float:
    """Return the busy CPU seconds of the machine since its start."""
    times = psutil.cpu_times()
    parts = (getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    return float(sum(parts))


def _own_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def table(cells: Sequence[Cell]) -> str:
    """Return a table with a row for each backend and kind of cell."""
    rows = []
    for backend in BACKENDS:
        of_backend = [cell for cell in cells if cell.backend == backend]
        quiet = [cell for cell in of_backend if not cell.beside_loops]
        for kind, group in (
            ("quiet", quiet),
            ("quiet, and nobody else", [c for c in quiet if c.foreign_cores < QUIET_CORES]),
            ("quiet, not flagged", [c for c in quiet if not c.result.flags]),
            ("quiet, flagged", [c for c in quiet if c.result.flags]),
            (f"beside {BUSY_LOOPS} busy loops", [c for c in of_backend if c.beside_loops]),
        ):
            if group:
                rows.append((backend, kind, str(len(group)), *_rates(group), *_ranges(group)))
    headings = ("backend", "cells", "n", *FLAGS, "others (cores)", "steal (%)", "pairs/s")
    return markdown_table(headings, rows, "llr" + "r" * (len(headings) - 3))


def _rates(group: Sequence[Cell]) -> list[str]:
    return [percent(sum(flag in c.result.flags for c in group) / len(group), 1) for flag in FLAGS]


def _pairs_per_s(cell: Cell) -> str:
    value = cell.result.metrics.get(catalogue.PAIRS_PER_S.name)
    return "no result" if value is None else f"{catalogue.PAIRS_PER_S.text(value)} pairs/s"


def _ranges(group: Sequence[Cell]) -> list[str]:
    """Return the medians and ranges of the columns after the flags."""
    texts = []
    for metric in (catalogue.CORES_USED_BY_OTHERS, catalogue.CPU_STEAL, catalogue.PAIRS_PER_S):
        values = [c.result.metrics[metric.name] for c in group if metric.name in c.result.metrics]
        texts.append(
            f"{metric.text(median(values))} ({metric.text(min(values))} to "
            f"{metric.text(max(values))})"
            if values
            else ""
        )
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20, help="of each backend and kind")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    overrides = [f"max_seconds={given.seconds}", *given.overrides]
    cells = []
    for turn in range(given.cells):
        # Reverse the order in every second turn, so that a slow drift cancels out
        kinds = [(backend, loops) for backend in BACKENDS for loops in (False, True)]
        for backend, loops in kinds[:: -1 if turn % 2 else 1]:
            cell = measured(backend, loops, overrides)
            cells.append(cell)
            found = "; ".join(f"{flag}: {why}" for flag, why in cell.result.flags.items())
            print(
                f"{turn + 1}/{given.cells} {backend}{' beside loops' if loops else ''}: others "
                f"{number(cell.foreign_cores, 2)} cores; {_pairs_per_s(cell)}; "
                f"{found or 'no flag'}",
                file=sys.stderr,
                flush=True,
            )
    command = f"python -m benchmarks.flags {' '.join(sys.argv[1:])}".strip()
    text = "\n\n".join([f"{machine()}", f"    {command}", table(cells)])
    print(text)
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "flags.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
