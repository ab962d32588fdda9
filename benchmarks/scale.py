"""Measure the time and memory to process 500 cells, and a cell with a million requests.

    python -m benchmarks.scale [--cells 500] [--requests 1000000] [--only NAME ...]

A real cell of the noop backend is measured; its result and requests are then copied with random
variations. Each step runs in its own process. Its time excludes imports, and its memory is given
before the step and at its peak. It writes outputs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.race import REPO, machine
from crossbench.events import CellEnded, CellStarted, Event, StageStarted, SweepStarted, encode
from crossbench.measure.memory import peak_rss, rss_mb
from crossbench.report.tables import markdown_table
from crossbench.results import (
    RunResult,
    cell_folders,
    load_cell,
    load_records,
    save_records,
    save_result,
)
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.places import outputs_dir
from crossbench.types import RequestRecord

KEPT_REQUESTS = 200  # of each cell of the sweep
CONCURRENCIES = 20


def report_of_sweep(place: Path) -> Callable[[], object]:
    from crossbench.report.sweep import write_sweep_report

    return lambda: write_sweep_report(place / "sweep")


def load_sweep(place: Path) -> Callable[[], object]:
    from crossbench.analysis.frames import load_sweep

    return lambda: load_sweep(place / "sweep")


def load_requests_of_sweep(place: Path) -> Callable[[], object]:
    from crossbench.analysis.frames import load_requests

    return lambda: load_requests(place / "sweep")


def sync(place: Path) -> Callable[[], object]:
    """Upload to an existing store, because creating one takes seconds."""
    from crossbench.sweeps.upload import upload_sweep
    from crossbench.tracking.mlflow_store import MlflowTracker

    uri, artifacts = f"sqlite:///{place / 'mlflow.db'}", str(place / "mlartifacts")
    tracker = MlflowTracker("mlflow", uri, "crossbench", artifacts, None, 30)
    tracker.find("none")
    return lambda: upload_sweep(place / "sweep", tracker)


def page(place: Path) -> Callable[[], object]:
    """Read the journal at the end of a sweep and build one reply of `/metrics`."""
    from crossbench.dashboard.board import Board
    from crossbench.dashboard.document import document
    from crossbench.dashboard.watch import Watcher

    board = Board(address=None)

    def show() -> object:
        Watcher(board, place / "events.jsonl").read_journal()
        assert len(board.done) == len(cell_folders(place / "sweep"))
        return json.dumps(document(board, time.time()))

    return show


def save_million(place: Path) -> Callable[[], object]:
    records = load_records(place / "cell")
    (place / "saved").mkdir(exist_ok=True)
    return lambda: save_records(records, place / "saved")


def load_million(place: Path) -> Callable[[], object]:
    return lambda: load_records(place / "cell")


def metrics_of_million(place: Path) -> Callable[[], object]:
    """Compute the metrics that the cell process computes after the last request."""
    from crossbench.measure.correlation import correlation_metrics
    from crossbench.measure.statistics import summarise, windows

    records = load_records(place / "cell")
    return lambda: (summarise(records), correlation_metrics(records), windows(records))


def report_of_million(place: Path) -> Callable[[], object]:
    from crossbench.report.cell import write_cell_report

    return lambda: write_cell_report(place / "cell")


def load_requests_of_million(place: Path) -> Callable[[], object]:
    from crossbench.analysis.frames import load_requests

    return lambda: load_requests(place / "cell")


PARTS: Mapping[str, Callable[[Path], Callable[[], object]]] = {
    "sweep: report": report_of_sweep,
    "sweep: load_sweep": load_sweep,
    "sweep: load_requests": load_requests_of_sweep,
    "sweep: sync to SQLite": sync,
    "sweep: page": page,
    "requests: metrics": metrics_of_million,
    "requests: save": save_million,
    "requests: load": load_million,
    "requests: report": report_of_million,
    "requests: load_requests": load_requests_of_million,
}


def run_part(name: str, place: Path) -> dict[str, float]:
    """Return the seconds, the resident memory in MB before, and the peak until the end."""
    ready = PARTS[name](place)
    before_mb, peak, started_s = rss_mb(), peak_rss(), time.perf_counter()
    peak.start()
    ready()
    seconds, peak_mb = time.perf_counter() - started_s, peak.peak_mb()
    peak.stop()
    return {"seconds": seconds, "before_mb": before_mb, "peak_mb": peak_mb}


def measured_cell(place: Path) -> Path:
    """Measure a real cell, from which the others are derived, and return its folder."""
    folder = place / "real"
    overrides = ("backend=noop", "batch=8", "max_seconds=2", "requests=1000000", "tracker=none")
    command = [sys.executable, "-m", "crossbench", *overrides, "dashboard=none"]
    subprocess.run([*command, f"hydra.run.dir={folder}"], check=True, cwd=REPO, capture_output=True)
    return folder


def make_sweep(real: Path, cells: int, place: Path) -> None:
    """Write cells with other values of batch and concurrency, and the journal of such a sweep."""
    from crossbench.report.axes import full_label

    result, records = load_cell(real)
    rng = np.random.default_rng(0)
    events: list[tuple[Event, int | None]] = [(SweepStarted("sweep", cells), None)]
    for number in range(cells):
        batch, concurrency = 1 + number // CONCURRENCIES, 1 + number % CONCURRENCIES
        changed = {"batch": batch, "concurrency": concurrency}
        config = CellConfig({**result.config.document, **changed})
        speed = float(rng.lognormal(sigma=0.5))
        folder = place / "sweep" / str(number)
        folder.mkdir(parents=True)
        made = varied(replace(result, config=config, cell_id=config.cell_id), speed)
        save_result(made, folder)
        save_records(slower(records, KEPT_REQUESTS, speed, rng), folder)
        events += [
            (CellStarted(full_label(config), config.texts), number),
            (StageStarted("measuring"), number),
            (CellEnded(made.status, None, False, made.metrics), number),
        ]
    process = {"parent_run_id": None, "pid": 0, "dashboard_url": None}
    state = {"name": "sweep", "cells": cells, **process, "axes": ["batch", "concurrency"]}
    (place / "sweep" / "sweep.json").write_text(json.dumps(state) + "\n", "utf-8")
    with (place / "events.jsonl").open("w", encoding="utf-8") as file:
        for second, (event, cell) in enumerate(events):
            file.write(encode(event, 1.7e9 + second, cell))


def make_cell(real: Path, requests: int, place: Path) -> None:
    """Write one cell with this number of requests."""
    result, records = load_cell(real)
    (place / "cell").mkdir()
    save_result(result, place / "cell")
    save_records(slower(records, requests, 1.0, np.random.default_rng(1)), place / "cell")


def varied(result: RunResult, speed: float) -> RunResult:
    """Multiply rates by `speed` and divide times by it."""
    metrics = {
        name: value * speed
        if name.endswith("_per_s")
        else value / speed
        if name.endswith("_ms")
        else value
        for name, value in result.metrics.items()
    }
    return replace(result, metrics=metrics)


def slower(
    records: list[RequestRecord], count: int, speed: float, rng: np.random.Generator
) -> list[RequestRecord]:
    """Return `count` consecutive requests with random variations of the times in `records`."""
    made, now_s = [], 0.0
    factors = rng.lognormal(sigma=0.1, size=count) / speed
    for index, factor in enumerate(factors.tolist()):
        record = records[index % len(records)]
        ended_s = now_s + (record.received_s - record.sent_s) * factor
        times = {
            name: getattr(record, name) * factor for name in ("tokenize_ms", "queue_ms", "infer_ms")
        }
        made.append(
            replace(record, index=index, due_s=now_s, sent_s=now_s, received_s=ended_s, **times)
        )
        now_s = ended_s
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--part", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(run_part(given.part[0], Path(given.part[1]))))
        return
    place = Path(tempfile.mkdtemp(prefix="crossbench-scale-"))
    try:
        real = measured_cell(place)
        make_sweep(real, given.cells, place)
        make_cell(real, given.requests, place)
        rows = []
        for name in given.only:
            command = [sys.executable, "-m", "benchmarks.scale", "--part", name, str(place)]
            done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=REPO)
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append((name, *(f"{found[key]:,.1f}" for key in found)))
            print(rows[-1], file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    text = "\n\n".join(
        [
            f"{machine()}; sweep: {given.cells} cells of {KEPT_REQUESTS} kept requests; requests: "
            f"one cell of {given.requests:,}",
            markdown_table(("", "seconds", "MB before", "peak MB"), rows, "lrrr"),
        ]
    )
    print(text)
    outputs_dir().mkdir(exist_ok=True)
    (outputs_dir() / "scale.md").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
