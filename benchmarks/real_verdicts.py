"""Measure how often verdicts on real cells are wrong, beside a disturbing load and without it.

    python -m benchmarks.real_verdicts [--equal 40] [--real 10] [--slower 20] [--seconds 1.5]
    python -m benchmarks.real_verdicts --judge outputs/real_verdicts.json

Each series measures a few cells block by block, in fresh processes: a cell twice, or beside one
that needs 5 % or 2 % more time per pair. The blocks are then cut into separate sweeps of two cells,
which are judged as the sweeps of users are. The disturbing load are processes that keep a core busy
for random times. The quiet series is only quiet if nobody else uses the machine; the table has the
share of runs that were disturbed. With the defaults it takes about 70 minutes on two quiet cores.
Ctrl-C ends it early, with the table so far. It writes outputs/real_verdicts.md, and the measured
values to outputs/real_verdicts.json after each block, so that they can be judged again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks.race import machine
from crossbench.dashboard.journal import NoJournal
from crossbench.events import ProgressMade
from crossbench.measure.catalogue import P95_LATENCY, PAIRS_PER_S, RSS_PEAK_MB
from crossbench.measure.intervals import Interval
from crossbench.measure.metric import Metric
from crossbench.measure.run_spread import spread_in_blocks, visible_difference
from crossbench.report.judged import is_better, is_worse, judged_value, title
from crossbench.report.selfcheck import pair
from crossbench.report.tables import markdown_table
from crossbench.results import Flag, RunResult
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.composition_errors import CONFIG_NAME
from crossbench.settings.places import conf_dir, outputs_dir
from crossbench.settings.plan import composed_config
from crossbench.settings.schema import register
from crossbench.sweeps.cell import run_cell
from crossbench.wording import ABSENT, percent

METRICS = (PAIRS_PER_S, P95_LATENCY, RSS_PEAK_MB)
BASE = ("tracker=none", "dashboard=none", "quality=none", "stop=fixed", "warmup_max_seconds=1")
BUSY = ("backend=noop", "backend.service_kind=busy", "batch=16", "concurrency=2")
SERVICE_US = 1000
# Two processes, each of which keeps a core busy for half of the time, in spells of 2 s on average
LOADS, SPELL_S = 2, 2.0
_LOAD = """
import random, time
generator = random.Random({seed})
while True:
    end_s = time.perf_counter() + generator.expovariate(1 / {spell_s})
    while time.perf_counter() < end_s:
        pass
    time.sleep(generator.expovariate(1 / {spell_s}))
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is judged of one run: the logarithms by the name of the metric, None if unknown."""

    log_values: Mapping[str, float | None]
    disturbed: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Cells that are measured block by block: the first is compared with each of the others.

    `cells` maps what the cell is to its overrides; the first one is the baseline. `runs` has one
    list for each complete block.
    """

    name: str
    disturbed: bool
    cells: Mapping[str, Sequence[str]]
    sweeps: int
    repeats: int
    runs: list[list[Measured]] = field(default_factory=list)

    @property
    def title(self) -> str:
        return f"{self.name}, {'disturbed' if self.disturbed else 'quiet'}"


class Silent:
    """Shows no progress of a cell: a line for each sweep is enough."""

    def stage(self, stage: str) -> None:
        """Show nothing."""

    def advance(self, made: ProgressMade) -> None:
        """Show nothing."""

    def flag(self, flags: Mapping[str, str]) -> None:
        """Show nothing."""


def all_series(given: argparse.Namespace) -> list[Series]:
    """Return the series of the benchmark."""
    short = (f"max_seconds={given.seconds:g}",)
    longer = (f"max_seconds={1.5 * given.seconds:g}",)
    real = (f"max_seconds={2 * given.seconds:g}", "batch=4", f"backend={given.backend}")
    noop = ("backend=noop", *short)

    def busy(slowdown: float) -> tuple[str, ...]:
        return (*BUSY, *longer, f"backend.service_us_per_pair={SERVICE_US * (1 + slowdown):g}")

    five, two = "5 % slower", "2 % slower"
    cells = {"busy noop": busy(0), five: busy(0.05), two: busy(0.02)}
    equal = {"noop": noop, "equal": noop}
    equal_real = {given.backend: real, "equal": real}
    return [
        Series("noop", True, equal, given.equal, 3),
        Series(given.backend, True, equal_real, given.real, 3),
        Series("busy noop", True, cells, given.real, 3),
        Series("busy noop", False, cells, given.slower, given.repeats),
    ]


@contextlib.contextmanager
def disturbing_load(wanted: bool) -> Iterator[None]:
    """Keep cores busy for random times with processes of this benchmark."""
    loads = [
        subprocess.Popen([sys.executable, "-c", _LOAD.format(seed=seed, spell_s=SPELL_S)])
        for seed in range(LOADS if wanted else 0)
    ]
    try:
        yield
    finally:
        for load in loads:
            load.kill()
            load.wait()


def measure(series: Series, folder: Path) -> Iterator[None]:
    """Measure a series, and yield after each block; the order of the cells is random."""
    configs = [_config(overrides) for overrides in series.cells.values()]
    generator = np.random.default_rng(0)
    with disturbing_load(series.disturbed):
        for block in range(series.sweeps * series.repeats):
            results: dict[int, Measured] = {}
            for cell in generator.permutation(len(configs)).tolist():
                place = folder / series.title / f"{block}-{cell}"
                results[cell] = _measured(run_cell(configs[cell], place, Silent(), NoJournal()))
            series.runs.append([results[cell] for cell in range(len(configs))])
            if (block + 1) % series.repeats == 0:
                done = (block + 1) // series.repeats
                print(f"{series.title}: {done} of {series.sweeps} sweeps", flush=True)
            yield


def rows_of(series: Series, margin: float) -> list[list[str]]:
    """Return a row of the table for each comparison and metric."""
    names, rows = list(series.cells), []
    runs = [run for block in series.runs for run in block]
    disturbed = sum(run.disturbed for run in runs)
    for metric in METRICS:
        seen = _visible(_matrix(series.runs, metric), series.repeats, margin)
        for cell in range(1, len(names)):
            found = [pair(sweep, margin).difference for sweep in _sweeps(series, cell, metric)]
            worse = sum(is_worse(metric, item) for item in found)
            better = sum(is_better(metric, item) for item in found)
            rows.append([
                series.title,
                names[cell],
                title(metric),
                str(series.repeats),
                ABSENT if seen is None else percent(seen, 1),
                f"{worse} of {len(found)}",
                f"{better} of {len(found)}",
                percent(disturbed / max(1, len(runs))),
            ])  # fmt: skip
    return rows


def _config(overrides: Sequence[str]) -> CellConfig:
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return composed_config(compose(CONFIG_NAME, overrides=[*BASE, *overrides]))


def _measured(run: RunResult) -> Measured:
    values = {metric.name: judged_value(run, metric) for metric in METRICS}
    return Measured(values, Flag.DISTURBED in run.flags)


def _matrix(blocks: Sequence[Sequence[Measured]], metric: Metric) -> np.ndarray:
    """Return the logarithms of a metric's values, (cells, blocks), NaN where a run has none."""
    found = [[run.log_values[metric.name] for run in runs] for runs in zip(*blocks, strict=True)]
    return np.array(found, dtype=np.float64).reshape(-1, len(blocks))


def _sweeps(series: Series, cell: int, metric: Metric) -> Iterator[np.ndarray]:
    """Yield the sweeps of the first cell and another one, of shape (2, repeats).

    A sweep in which some run has no value is left out, as reports do not compare it.
    """
    count = series.repeats
    for start in range(0, len(series.runs) - count + 1, count):
        blocks = [[runs[0], runs[cell]] for runs in series.runs[start : start + count]]
        sweep = _matrix(blocks, metric)
        if np.isfinite(sweep).all():
            yield sweep


def _visible(values: np.ndarray, repeats: int, margin: float) -> float | None:
    """What selfcheck would say: the difference that 90 % of the sweeps with `repeats` see."""
    spread = spread_in_blocks(values)
    if spread is None:
        return None

    def interval_of(simulated: np.ndarray) -> Interval | None:
        found = pair(simulated, margin)
        if found.low is None or found.high is None:
            return None
        return Interval(math.log(found.low), math.log(found.high))

    return visible_difference(spread[0], repeats, interval_of, seed=0)


def table(series: Sequence[Series], margin: float) -> str:
    """Return the table of all series that have results."""
    headings = ("cell", "compared", "metric", "repeats", "visible", "called worse",
                "called better", "disturbed runs")  # fmt: skip
    rows = [row for item in series if item.runs for row in rows_of(item, margin)]
    return markdown_table(headings, rows, "lll" + "r" * (len(headings) - 3))


def _store(series: Sequence[Series], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    document = {"machine": machine(), "series": [asdict(item) for item in series]}
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _stored(path: Path) -> tuple[str, list[Series]]:
    """Return the machine and the series of a file that `_store` wrote."""
    document = json.loads(path.read_text("utf-8"))
    series = [
        Series(**{**item, "runs": [[Measured(**run) for run in block] for block in item["runs"]]})
        for item in document["series"]
    ]
    return document["machine"], series


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--equal", type=int, default=40, help="sweeps of equal noop cells")
    parser.add_argument("--real", type=int, default=10, help="sweeps of equal real cells")
    parser.add_argument("--slower", type=int, default=20, help="quiet sweeps with slower cells")
    parser.add_argument("--repeats", type=int, default=6, help="of the quiet sweeps")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a noop cell")
    parser.add_argument("--backend", default="onnx", help="of the real cells")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="judge these values again")
    given = parser.parse_args()
    margin = float(_config([]).value("report.margin"))
    if given.judge:
        where, series = _stored(given.judge)
    else:
        where, series = machine(), all_series(given)
        folder = tempfile.TemporaryDirectory(prefix="crossbench-verdicts-")
        with folder as name, contextlib.suppress(KeyboardInterrupt):
            for item in series:
                for _ in measure(item, Path(name)):
                    _store(series, outputs_dir() / "real_verdicts.json")
    text = (
        f"# Verdicts on real cells\n\n{where}\n\n{table(series, margin)}\n\n"
        "visible: the difference that 90 % of such sweeps would find, as selfcheck says it from "
        "these runs. Equal cells should never be called worse or better; slower ones should never "
        "be called better. Their memory is equal.\n"
    )
    path = outputs_dir() / "real_verdicts.md"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
